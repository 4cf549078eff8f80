//! One pod of the candidate that fails alone: its weight is taken, and the revision is judged by
//! the others.

use super::subject::Subject;
use super::turn::Turn;
use crate::observation::{Contest, Witness};
use crate::state::PodFault;

impl Turn<'_> {
    /// Leaves the pod out that the evidence names, if another one can serve. True when that was
    /// done: what was seen under this fence is read once more, without that pod.
    pub(super) fn leave_out(&mut self, subject: &Subject) -> bool {
        let Some(Contest {
            witness: Witness::Pod(pod),
            why,
        }) = &self.seen.evidence.contested
        else {
            return false;
        };
        let is_first = self.candidate().is_some_and(|c| c.pod_fault.is_none());
        if !is_first || !subject.has_pod(pod) || subject.can_serve(Some(pod)) < 1 {
            return false;
        }
        if let Some(candidate) = &mut self.state.candidate {
            candidate.pod_fault = Some(PodFault {
                pod: pod.clone(),
                why: why.clone(),
                left_out: true,
            });
        }
        self.keeps_evidence_open = true;
        self.next_fence();
        self.state.verdict = format!("Pod fault: {why}");
        self.warn(
            "PodFault",
            format!("{why}: it gets no requests any more, and the revision is judged by the others. Delete it"),
        );
        true
    }

    /// A pod that was left out is gone: what takes its place serves like any other.
    pub(super) fn forget_gone_pod(&mut self, subject: &Subject) {
        let wanted = &subject.wanted.revision;
        let Some(candidate) = &mut self.state.candidate else {
            return;
        };
        let Some(fault) = candidate.pod_fault.as_mut().filter(|fault| fault.left_out) else {
            return;
        };
        if candidate.arm.revision != *wanted || subject.has_pod(&fault.pod) {
            return;
        }
        fault.left_out = false;
        let gone = format!("pod {} is gone: nothing is left out any more", fault.pod);
        self.next_fence();
        self.state.verdict = String::new();
        self.note("PodFaultOver", gone);
    }
}
