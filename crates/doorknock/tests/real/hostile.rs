//! A gateway that has the right keys and lies.

use doors_spa::{
    receipt::{Answer, Receipt, ToldDoor},
    request::Operation,
};

use crate::{
    home::{Home, Said},
    program::scene,
    testbed::{Testbed, receipt},
};

/// What the client says when it asks a gateway that tells these doors, by what it is to leave out.
fn ask(in_all: u16, mut doors: impl FnMut(u32) -> Vec<String> + Send + 'static) -> (Home, Testbed, Said) {
    let (home, testbed) = scene(move |_, request| {
        let Operation::Ask { skip } = request.operation else { return None };
        let door = |name| ToldDoor { name, longest: 30 };
        let doors = doors(skip).into_iter().map(door).collect();
        Some(Receipt { doors_in_all: in_all, doors, ..receipt(Answer::Told) })
    });
    let said = home.doorknock(&["ask", "home"]);
    (home, testbed, said)
}

fn is_refused(said: &Said, why: &str) {
    assert_eq!(said.code, Some(5), "{said:?}");
    assert!(said.err.contains("the server's answer cannot be true") && said.err.contains(why), "{said:?}");
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
}

#[test]
fn a_gateway_cannot_keep_a_client_signing_without_end() {
    let (_home, testbed, said) = ask(u16::MAX, |skip| vec![format!("door-{skip}")]);
    is_refused(&said, "it counts 65535 doors, and no server has more than 1024");
    assert_eq!((said.out.as_str(), testbed.heard.try_iter().count()), ("", 1));

    let (_home, testbed, said) = ask(1024, |skip| vec![format!("door-{skip}")]);
    is_refused(&said, "it does not come to an end");
    assert_eq!(testbed.heard.try_iter().count(), 342);
}

#[test]
fn a_page_without_a_new_door_ends_the_asking_with_an_error() {
    let (_home, testbed, said) = ask(9, |_| vec!["ssh".to_owned(), "web".to_owned()]);
    is_refused(&said, "it tells a door twice");
    assert_eq!(said.out, "ssh  at most 30 s\nweb  at most 30 s");
    assert_eq!(testbed.heard.try_iter().count(), 2);

    let (home, _house, said) = ask(9, |_| Vec::new());
    is_refused(&said, "it holds doors back");
    let said = home.doorknock(&["ask", "home", "--json"]);
    assert_eq!((said.code, said.out.lines().count(), said.err.as_str()), (Some(5), 1, ""), "{said:?}");
    assert!(said.out.contains("\"outcome\":\"incredible\""), "{said:?}");
}

#[test]
fn a_doors_name_that_no_server_can_have_is_never_shown() {
    for name in ["s\u{1b}[2Jsh", "s\u{202e}hss", "s\u{200b}sh", "s\u{9b}2J", "ssh web", "", "tür", "ip"] {
        let (home, _house, said) = ask(1, move |_| vec![name.to_owned()]);
        is_refused(&said, "it names a door whose name ");
        assert_eq!(said.out, "");
        let said = home.doorknock(&["ask", "home", "--json"]);
        assert_eq!(said.code, Some(5), "{said:?}");
        assert!(name.is_empty() || !said.out.contains(name) || name == "ip", "{said:?}");
    }
}

#[test]
fn an_answer_to_another_question_is_an_error() {
    for (answer, arguments) in [
        (Answer::Closed, &["open", "home", "ssh"][..]),
        (Answer::Told, &["open", "home", "ssh"]),
        (Answer::Granted, &["close", "home", "ssh"]),
        (Answer::Closed, &["ask", "home"]),
        (Answer::Closed, &["proxy", "127.0.0.1", "9", "--server", "home", "--door", "ssh"]),
    ] {
        let (home, _house) = scene(move |_, _| Some(receipt(answer)));
        is_refused(&home.doorknock(arguments), "when asked to ");
        let said = home.doorknock(&[arguments, &["--quiet"]].concat());
        assert_eq!(said.out, "", "{said:?}");
        assert!(said.code != Some(0), "{said:?}");
    }
}

#[test]
fn what_cannot_be_is_never_told_as_true() {
    let lies = [
        ("it sees this machine at 224.0.0.1", Receipt { seen: "224.0.0.1:1".parse().unwrap(), ..granted() }),
        ("it sees this machine at ::", Receipt { seen: "[::]:1".parse().unwrap(), ..granted() }),
        ("it speaks of a door for 49710 d 6 h", Receipt { seconds: u32::MAX, ..granted() }),
        ("it speaks of a door for 365 d 1 h", Receipt { seconds: 365 * 86_400 + 3600, ..granted() }),
    ];
    for (why, lie) in lies {
        let (home, _house) = scene(move |_, _| Some(lie.clone()));
        is_refused(&home.doorknock(&["open", "home", "ssh"]), why);
        let said = home.doorknock(&["open", "home", "ssh", "--json"]);
        assert!(said.out.contains("\"admitted\":null,\"seconds\":null,\"until\":null"), "{said:?}");
    }
    let (home, _house) = scene(|_, request| {
        let stale = Receipt { challenge: [7; 8], time: u64::MAX, ..receipt(Answer::Stale) };
        Some(if request.challenge == [7; 8] { granted() } else { stale })
    });
    let said = home.doorknock(&["open", "home", "ssh"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("a time more than a hundred years away, which cannot be"), "{said:?}");
}

fn granted() -> Receipt {
    Receipt { seconds: 30, ..receipt(Answer::Granted) }
}
