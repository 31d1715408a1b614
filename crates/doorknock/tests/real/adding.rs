//! `doorknock add`: what it stores, keeps and says.

use std::fs;

use doors_spa::gateway::GatewayKey;
use getrandom::SysRng;
use rand_core::UnwrapErr;

use crate::{home::Home, program::scene};

#[test]
fn what_add_has_done_is_said() {
    let (home, testbed) = scene(|_, _| None);
    let mut arguments = vec!["add", "other", "192.0.2.1", &testbed.card, "--port", "4711"];
    arguments.extend(["-i", "/keys/mine", "--address", "seen"]);
    let said = home.doorknock(&arguments);
    let expected = "other is stored: knocks go to 192.0.2.1, UDP port 4711, signed with /keys/mine, for the address \
                    that it sees; doorknock ask other shows what you may open";
    assert_eq!((said.code, said.out.as_str()), (Some(0), expected));
    arguments.extend(["--replace", "--quiet"]);
    let said = home.doorknock(&arguments);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "", ""));
}

#[test]
fn a_server_that_is_replaced_keeps_what_is_not_given_anew_and_add_says_what() {
    let (home, testbed) = scene(|_, _| None);
    let file = home.path(".config/doorknock/servers/mine.toml");
    let text = || fs::read_to_string(&file).unwrap();
    let replace = |more: &[&str]| {
        let said = home.doorknock(&[&["add", "mine", "--replace"][..], more].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        said
    };
    let first = ["192.0.2.1", &testbed.card, "--port", "4711", "-i", "/keys/mine", "--address", "seen"];
    let said = replace(&first);
    assert!(said.out.starts_with("mine is stored: knocks go to 192.0.2.1, UDP port 4711, "), "{said:?}");
    fs::write(&file, format!("{}doors = [\"ssh\"]\n", text())).unwrap();
    let before = text();

    // Another card, as after a rotation.
    let card = GatewayKey::generate(&mut UnwrapErr(SysRng)).card().to_text().to_string();
    let said = replace(&["192.0.2.1", &card]);
    let now = "mine is replaced: knocks go to 192.0.2.1, UDP port 4711, signed with /keys/mine, for the address that it \
               sees; changed: card; kept: port, key, address; doorknock ask mine shows what you may open";
    assert_eq!(said.out, now);
    assert_eq!(text(), before.replace(&testbed.card, &card));

    let said = replace(&["192.0.2.2", &card, "--port", "62201", "-i", "/keys/other"]);
    assert!(said.out.contains("; changed: host, port, key; kept: address; "), "{said:?}");
    assert!(!text().contains("\ndoors = "), "another host may have other doors");
    let said = replace(&["192.0.2.2", &card]);
    assert!(said.out.contains("; changed: nothing; kept: key, address; "), "{said:?}");

    // The rest of a file is kept also if its card is not valid, and nothing of one that cannot be read.
    fs::write(&file, text().replace(&card, &card[..50])).unwrap();
    let said = home.doorknock(&["open", "mine", "ssh"]);
    let path = file.display();
    let expected = format!(
        "doorknock: {path} line 3: not a valid card: it is truncated or altered; copy the whole line again; doorknock add \
         --replace stores another"
    );
    assert_eq!((said.code, said.err), (Some(1), expected));
    let said = replace(&["192.0.2.2", &card]);
    assert!(said.out.contains("; changed: card; kept: key, address; "), "{said:?}");
    fs::write(&file, "host = 1\n").unwrap();
    let said = replace(&["192.0.2.2", &card]);
    assert!(
        said.out.contains("mine is stored: knocks go to 192.0.2.2, UDP port 62201; doorknock ask"),
        "{said:?}"
    );
    assert!(said.err.contains("doorknock: nothing of the former file is kept: "), "{said:?}");
}

#[test]
fn what_is_no_card_is_called_so_with_what_is_wrong() {
    let home = Home::new();
    for (card, why) in [
        ("ssh-ed25519", "it does not begin with \"doors1-\""),
        ("doors1-AAAA", "it is truncated or altered; copy the whole line again"),
    ] {
        let said = home.doorknock(&["add", "home", "192.0.2.1", card]);
        assert_eq!((said.code, said.err), (Some(1), format!("doorknock: not a valid card: {why}")));
    }
}
