//! Whether modules use each other in a circle.

use std::collections::BTreeSet;

use crate::Use;

/// Whether the exceptions are what it takes, neither less nor more, for the uses to have no circle.
pub(crate) fn breaks_every_circle(uses: &BTreeSet<Use>, exceptions: &BTreeSet<Use>) -> Result<(), String> {
    let left: BTreeSet<Use> = uses.difference(exceptions).cloned().collect();
    if let Some(circle) = circle(&left) {
        return Err(format!("a circle: {}", circle.join(" → ")));
    }
    for exception in exceptions {
        let mut with = left.clone();
        with.insert(exception.clone());
        if !uses.contains(exception) || circle(&with).is_none() {
            return Err(format!("needs no exception any more: {} → {}", exception.0, exception.1));
        }
    }
    Ok(())
}

/// Some circle, if there is one.
fn circle(uses: &BTreeSet<Use>) -> Option<Vec<String>> {
    let users: BTreeSet<&String> = uses.iter().map(|(user, _)| user).collect();
    users.into_iter().find_map(|start| way(uses, start, start, &mut BTreeSet::new()))
}

/// A way from one module to another, at least one use long.
fn way(uses: &BTreeSet<Use>, from: &String, to: &String, seen: &mut BTreeSet<String>) -> Option<Vec<String>> {
    for (_, used) in uses.iter().filter(|(user, _)| user == from) {
        if used == to {
            return Some(vec![from.clone(), to.clone()]);
        }
        if seen.insert(used.clone())
            && let Some(rest) = way(uses, used, to, seen)
        {
            return Some([vec![from.clone()], rest].concat());
        }
    }
    None
}

#[test]
fn an_exception_is_demanded_and_has_to_be_needed() {
    let uses = |text: &str| -> BTreeSet<Use> {
        let each = text.split_whitespace().map(|pair| pair.split_once('>').unwrap());
        each.map(|(user, used)| (user.to_owned(), used.to_owned())).collect()
    };
    let tried = |there: &str, excepted: &str| breaks_every_circle(&uses(there), &uses(excepted));
    assert_eq!(tried("a>b b>c a>c", ""), Ok(()));
    assert_eq!(tried("a>b b>c c>a", ""), Err("a circle: a → b → c → a".to_owned()));
    assert_eq!(tried("a>b b>c c>a", "c>a"), Ok(()));
    assert_eq!(tried("a>b b>c", "c>a"), Err("needs no exception any more: c → a".to_owned()));
    assert_eq!(tried("a>b b>c c>a", "c>a a>b"), Err("needs no exception any more: a → b".to_owned()));
}
