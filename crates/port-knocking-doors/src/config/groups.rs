//! The groups of users that a configuration names.

use std::fs;

use super::warnings::Warning;

/// Where groups are looked for: a name that only a directory service knows is not found here (group(5)).
const FILE: &str = "/etc/group";

/// The number of a group, which is given by name or number.
pub(crate) fn number_of(group: &str) -> Option<u32> {
    let number = group.parse().ok().filter(|number| *number != u32::MAX);
    number.or_else(|| find(&fs::read_to_string(FILE).unwrap_or_default(), group))
}

/// Warns of a group that is not there.
pub(super) fn missing(key: &'static str, group: Option<&str>) -> Option<Warning> {
    let group = group.filter(|group| number_of(group).is_none())?;
    Some(Warning::NoGroup { key, group: group.to_owned() })
}

fn find(text: &str, group: &str) -> Option<u32> {
    let of = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    text.lines().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_name_or_number() {
        let text = "root:x:0:\nadm:x:4:syslog,me\nbad line\nsudo:x:27:me\nlast:x:nothing:\n";
        for (group, number) in
            [("adm", Some(4)), ("sudo", Some(27)), ("ad", None), ("last", None), ("x", None)]
        {
            assert_eq!(find(text, group), number, "{group}");
        }
        assert_eq!(number_of("12345"), Some(12345));
        assert!(
            missing("control_group", Some("no-such-group")).is_some()
                && missing("control_group", None).is_none()
        );
    }
}
