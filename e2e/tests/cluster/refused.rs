//! Nothing that our accounts asked for was refused by RBAC. Runs when the others have. Whether
//! they may do more than that, the fault tests tell.

use std::collections::BTreeSet;

use sluice_e2e::rights;

use crate::node;

#[test]
fn no_account_was_refused_anything_in_all_that_happened_on_this_node() {
    let log = std::fs::read_to_string(node::audit_log()).unwrap();
    let asked: Vec<_> = log.lines().flat_map(rights::asked).collect();
    for account in ["controller", "serving", "ca"] {
        assert!(asked.iter().any(|one| one.account == account), "{account}");
    }
    let refused = rights::compare(&BTreeSet::new(), asked).refused;
    assert!(refused.is_empty(), "{refused:#?}");
}
