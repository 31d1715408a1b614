//! What programs read: one object in a line, on standard output alone.

use std::fs;

use crate::{
    home::{Home, Said},
    program::add,
    testbed::{Testbed, public_key},
};

#[test]
fn every_error_has_its_object_for_programs() {
    let home = Home::new();
    let failed = |said: &Said, code, parts: &[&str]| {
        assert_eq!((said.code, said.err.as_str(), said.out.lines().count()), (Some(code), "", 1), "{said:?}");
        assert!(parts.iter().all(|part| said.out.contains(part)), "{said:?}");
    };
    let unknown = "there is no server \\\"home\\\"; doorknock list shows them";
    let said = home.doorknock(&["open", "home", "ssh", "--json"]);
    let start = "{\"server\":\"home\",\"address\":null,\"door\":\"ssh\",\"outcome\":\"failed\",";
    failed(&said, 1, &[start, "\"notes\":[],", unknown]);
    let said = home.doorknock(&["ask", "home", "--json"]);
    failed(
        &said,
        1,
        &["{\"server\":\"home\",\"address\":null,\"door\":null,\"outcome\":\"failed\",", unknown],
    );
    for (wrong, why) in [
        (&["open", "--json"][..], "the following required arguments were not provided: <SERVER>"),
        (
            &["close", "home", "ssh", "--json", "--address", "x"],
            "invalid value 'x' for '--address <IP>': write an address, like 203.0.113.7 or 2001:db8::7, or seen",
        ),
        (&["ask", "home", "--json", "--quiet"], "the argument '--json' cannot be used with '--quiet'"),
    ] {
        let said = home.doorknock(wrong);
        let start = "{\"server\":null,\"address\":null,\"door\":null,\"outcome\":\"usage\",";
        failed(&said, 2, &[start, &format!("\"message\":\"{why}\"}}")]);
    }
    fs::create_dir_all(home.path(".config/doorknock")).unwrap();
    fs::write(home.path(".config/doorknock/servers"), "").unwrap();
    let said = home.doorknock(&["list", "--json"]);
    failed(&said, 1, &["{\"name\":null,\"host\":null,\"port\":null,\"error\":\""]);
}

#[test]
fn a_command_without_json_answers_a_wrong_option_to_people() {
    let home = Home::new();
    for arguments in
        [&["sequence", "127.0.0.1", "1,2,3,4,5", "--json"][..], &["remove", "x", "--json"], &["--json"]]
    {
        let said = home.doorknock(arguments);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{said:?}");
        assert!(said.err.starts_with("error: unexpected argument '--json' found"), "{said:?}");
    }
}

#[test]
fn programs_are_told_of_the_keys_without_an_answer_in_their_object_alone() {
    let mut home = Home::new();
    let keys = ["a", "b"].map(|name| home.key(name, "ed25519", ""));
    home.start_agent();
    keys.iter().for_each(|key| home.add_to_agent(key));
    // A gateway that knows neither of them.
    let testbed = Testbed::new("127.0.0.1", public_key(&home.key("other", "ed25519", "")), |_, _| None);
    add(&home, &testbed);
    let [one, other] = keys.map(|key| public_key(&key).fingerprint());
    let said = home.doorknock(&["open", "home", "ssh", "--json"]);
    assert_eq!((said.code, said.err.as_str()), (Some(3), ""), "{said:?}");
    let note = format!("\"notes\":[\"knocked with the keys {one} and {other}; -i chooses another\"]");
    assert!(said.out.contains(&note), "{said:?}");
    let said = home.doorknock(&["open", "home", "ssh", "-i", home.path("a").to_str().unwrap()]);
    assert!(said.err.contains(&format!("knocked with the key {one}; -i chooses another")), "{said:?}");
}
