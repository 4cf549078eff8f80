//! Random sequences: whatever happens on the way, at the end the client has in force what the
//! server has of the names it wants.

use proptest::prelude::*;
use sluice_xds::Kind;

use crate::harness::Pair;

#[derive(Debug, Clone)]
enum Step {
    Subscribe(Kind, u8),
    Unsubscribe(Kind, u8),
    Set(Kind, u8, u8),
    SetBad(Kind, u8),
    Remove(Kind, u8),
    Flush,
    DeliverRequest,
    DeliverResponse,
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || prop::sample::select(&Kind::ALL[..]);
    prop_oneof![
        3 => (kind(), 0..4u8).prop_map(|(kind, name)| Step::Subscribe(kind, name)),
        1 => (kind(), 0..4u8).prop_map(|(kind, name)| Step::Unsubscribe(kind, name)),
        3 => (kind(), 0..4u8, 0..3u8).prop_map(|(kind, name, v)| Step::Set(kind, name, v)),
        1 => (kind(), 0..4u8).prop_map(|(kind, name)| Step::SetBad(kind, name)),
        2 => (kind(), 0..4u8).prop_map(|(kind, name)| Step::Remove(kind, name)),
        4 => Just(Step::Flush),
        6 => Just(Step::DeliverRequest),
        6 => Just(Step::DeliverResponse),
        1 => Just(Step::Reconnect),
    ]
}

fn run(pair: &mut Pair, step: Step) {
    match step {
        Step::Subscribe(kind, name) => pair.subscribe(kind, &name.to_string()),
        Step::Unsubscribe(kind, name) => pair.unsubscribe(kind, &name.to_string()),
        Step::Set(kind, name, version) => pair.set(kind, &name.to_string(), &version.to_string()),
        Step::SetBad(kind, name) => pair.set(kind, &name.to_string(), "bad"),
        Step::Remove(kind, name) => pair.remove(kind, &name.to_string()),
        Step::Flush => pair.flush(),
        Step::DeliverRequest => drop(pair.deliver_request()),
        Step::DeliverResponse => drop(pair.deliver_response()),
        Step::Reconnect => pair.reconnect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn at_quiescence_the_client_has_what_the_server_has(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut pair = Pair::new();
        for step in steps {
            run(&mut pair, step);
        }
        // What is refused stays refused: let all content be good in the end.
        let bad = pair.table.0.iter().filter(|(_, r)| r.version == "bad");
        let bad: Vec<_> = bad.map(|(name, _)| name.clone()).collect();
        for name in bad {
            pair.set(name.kind, &name.name, "good");
        }
        pair.drive();
        prop_assert_eq!(&pair.in_force, &pair.expected());
        prop_assert_eq!(&pair.held(), &pair.expected());
        prop_assert!(pair.server.is_settled());
        prop_assert_eq!(pair.server.rejections().count(), 0);
        for (kind, name, _) in pair.client.subscriptions() {
            let version = pair.expected().get(&sluice_xds::ResourceName::new(kind, name)).cloned();
            prop_assert_eq!(pair.server.acked(kind, name), version.as_deref());
        }
        let before = pair.take_log().len();
        prop_assert!(before < 500);
        pair.reconnect();
        pair.drive();
        let again = pair.take_log();
        prop_assert!(again.iter().all(|line| !line.contains('@')), "resent: {again:?}");
    }
}
