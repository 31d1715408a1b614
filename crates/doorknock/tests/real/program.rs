//! The program, from its arguments to its exit code.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    time::{Duration, Instant},
};

use doors_spa::{
    receipt::{Answer, Receipt, ToldDoor},
    request::Operation,
};

use crate::{
    home::{Home, Said, run},
    testbed::{Testbed, public_key, receipt},
};

pub(crate) fn add(home: &Home, testbed: &Testbed) {
    let host = testbed.address.ip().to_string();
    let said = home.doorknock(&["add", "home", &host, &testbed.card, "--port", &testbed.port()]);
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// A home with the usual key, and a gateway that answers so.
pub(crate) fn scene(
    answer: impl FnMut(usize, &doors_spa::request::Request) -> Option<Receipt> + Send + 'static,
) -> (Home, Testbed) {
    let home = Home::new();
    let key = home.key(".ssh/id_ed25519", "ed25519", "");
    let testbed = Testbed::new("127.0.0.1", public_key(&key), answer);
    add(&home, &testbed);
    (home, testbed)
}

#[test]
fn a_door_opens_with_the_usual_key_and_closes_again() {
    let home = Home::new();
    let key = home.key(".ssh/id_ed25519", "ed25519", "");
    let testbed = Testbed::friendly(public_key(&key));
    add(&home, &testbed);
    let said = home.doorknock(&["open", "home", "ssh"]);
    assert!(
        said.out.starts_with("ssh open for 127.0.0.1 until ") && said.out.ends_with(" (30 s)"),
        "{said:?}"
    );
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let said = home.doorknock(&["open", "home", "ssh", "--for", "1h30m", "--address", "203.0.113.7"]);
    assert!(
        said.out.starts_with("ssh open for 203.0.113.7 until ") && said.out.ends_with(" (1 h 30 min)"),
        "{said:?}"
    );
    let said = home.doorknock(&["close", "home", "ssh"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "ssh closed for 127.0.0.1"));
    let said = home.doorknock(&["open", "home", "ssh", "--quiet"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "", ""));
    let named: Vec<_> = testbed.heard.try_iter().map(|request| request.address).collect();
    assert_eq!(named, [None, Some("203.0.113.7".parse().unwrap()), None, None]);
}

#[test]
fn the_agent_signs_without_a_key_file_and_with_the_one_that_is_chosen() {
    let mut home = Home::new();
    home.start_agent();
    let (first, second) = (home.key("first", "ed25519", ""), home.key("second", "ed25519", ""));
    let rsa = home.key("rsa", "rsa", "");
    for key in [&rsa, &first, &second] {
        home.add_to_agent(key);
    }
    for key in [&first, &second] {
        fs::remove_file(key).unwrap();
    }
    let testbed = Testbed::friendly(public_key(&first));
    add(&home, &testbed);
    let said = home.doorknock(&["open", "home", "ssh"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");

    // A server that knows the second key alone is silent to the first.
    let testbed = Testbed::friendly(public_key(&second));
    let host = testbed.address.ip().to_string();
    home.doorknock(&["add", "other", &host, &testbed.card, "--port", &testbed.port()]);
    let chosen = home.path("second").display().to_string();
    let start = Instant::now();
    let said = home.doorknock(&["open", "other", "ssh", "-i", &chosen]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(4), "the chosen key is the first");
    let said = home.doorknock(&["open", "other", "ssh"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("no answer with the key SHA256:"), "{said:?}");

    home.empty_agent();
    let said = home.doorknock(&["open", "home", "ssh"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("doorknock keygen"), "{said:?}");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let (home, _house) = scene(|_, _| Some(receipt(Answer::Granted)));
    let key = home.path(".ssh/id_ed25519");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let said = home.doorknock(&["open", "home", "ssh"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("mode 640") && said.err.contains("chmod 600"), "{said:?}");
}

#[test]
fn lost_receipts_are_made_up_for() {
    let (home, testbed) = scene(|number, _| (number == 2).then(|| receipt(Answer::Granted)));
    let said = home.doorknock(&["open", "home", "ssh"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let heard: Vec<_> = testbed.heard.try_iter().collect();
    assert_eq!(heard.len(), 3);
    assert_ne!(heard[0].nonce, heard[1].nonce);
}

#[test]
fn a_wrong_clock_opens_the_door_by_a_challenge() {
    let (home, testbed) = scene(|_, request| {
        let time = request.time + 240_500;
        let challenged = request.challenge == *b"a riddle";
        let stale = Receipt { challenge: *b"a riddle", time, ..receipt(Answer::Stale) };
        Some(if challenged { receipt(Answer::Granted) } else { stale })
    });
    let said = home.doorknock(&["open", "home", "ssh"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(said.err, "doorknock: your clock is 4 min behind; a challenge of the server's has settled it");
    assert_eq!(testbed.heard.try_iter().count(), 2);
}

#[test]
fn each_outcome_has_its_exit_code() {
    for (answer, code) in [
        (Answer::NotAllowed, 4),
        (Answer::TooMany, 5),
        (Answer::Address, 5),
        (Answer::NotRecorded, 5),
        (Answer::Firewall, 5),
        (Answer::Stale, 5),
    ] {
        let (home, _house) = scene(move |_, _| Some(receipt(answer)));
        let said = home.doorknock(&["open", "home", "admin", "--quiet"]);
        assert_eq!((said.code, said.out.as_str()), (Some(code), ""), "{said:?}");
        assert!(said.err.starts_with("doorknock: ") && said.err.lines().count() == 1, "{said:?}");
    }
    let home = Home::new();
    assert_eq!(home.doorknock(&["open"]).code, Some(2));
    // It would name none, and be told as if it had been admitted.
    for unspecified in ["::", "0.0.0.0", "::ffff:0.0.0.0"] {
        let said = home.doorknock(&["open", "home", "ssh", "--address", unspecified]);
        assert!(said.code == Some(2) && said.err.contains("write an address, like"), "{said:?}");
    }
    let said = home.doorknock(&["open", "home", "ssh"]);
    assert_eq!((said.code, said.err.contains("there is no server \"home\"")), (Some(1), true), "{said:?}");
}

#[test]
fn nobody_who_answers_is_told_after_five_seconds() {
    let (home, testbed) = scene(|_, _| None);
    let start = Instant::now();
    let said = home.doorknock(&["open", "home", "ssh"]);
    assert_eq!(said.code, Some(3));
    assert!(
        said.err.contains("no answer: the daemon does not run there, wrong card, key or port, or the datagrams do not arrive"),
        "{said:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(7));
    assert_eq!(testbed.heard.try_iter().count(), 5);
}

#[test]
fn what_it_waits_for_is_said_after_a_moment_but_not_to_programs_or_where_it_is_to_be_quiet() {
    let (home, testbed) = scene(|number, _| (number % 3 == 2).then(|| receipt(Answer::Granted)));
    // The third knock leaves after 900 ms.
    let said = home.doorknock(&["open", "home", "ssh"]);
    let expected =
        format!("doorknock: waiting for an answer of home at {}, for 5 s with each key", testbed.address);
    assert_eq!((said.code, &said.waits[..], said.err.as_str()), (Some(0), &[expected][..], ""));
    for less in ["--quiet", "--json"] {
        let said = home.doorknock(&["open", "home", "ssh", less]);
        assert_eq!((said.code, said.waits.len(), said.err.as_str()), (Some(0), 0, ""), "{less}: {said:?}");
    }
}

#[test]
fn a_time_that_was_cut_is_called_so_to_people_and_to_programs() {
    let (home, _house) = scene(|_, _| Some(Receipt { seconds: 3600, ..receipt(Answer::Granted) }));
    let cut = "you asked for 8 h, and the server gives no more than 1 h";
    let said = home.doorknock(&["open", "home", "ssh", "--for", "8 hours"]);
    assert_eq!((said.code, said.err), (Some(0), format!("doorknock: {cut}")));
    let said = home.doorknock(&["open", "home", "ssh", "--for", "8h", "--json"]);
    assert!(said.out.contains("\"seconds\":3600,"), "{said:?}");
    assert!(
        said.out.contains(&format!("\"wanted\":28800,\"notes\":[\"{cut}\"]")) && said.err.is_empty(),
        "{said:?}"
    );
}

#[test]
fn asking_goes_through_all_pages() {
    let home = Home::new();
    let key = home.key(".ssh/id_ed25519", "ed25519", "");
    let testbed = Testbed::friendly(public_key(&key));
    add(&home, &testbed);
    let said = home.doorknock(&["ask", "home"]);
    let lines: Vec<String> = (0..20).map(|number| format!("door-{number:02}  at most 1 h")).collect();
    assert_eq!((said.code, said.out), (Some(0), lines.join("\n")));
    let pages = testbed.heard.try_iter().filter(|request| matches!(request.operation, Operation::Ask { .. }));
    assert!(pages.count() > 1);
}

/// A gateway that has these doors for the client, and opens everything.
fn gateway_with(doors: &'static [&'static str]) -> (Home, Testbed) {
    scene(move |_, request| {
        let told = |name: &&str| ToldDoor { name: (*name).to_owned(), longest: 3600 };
        Some(match request.operation {
            Operation::Ask { .. } => {
                let doors_in_all = u16::try_from(doors.len()).unwrap();
                Receipt { doors_in_all, ..receipt(Answer::Told) }.with_doors(doors.iter().map(told))
            }
            Operation::Open { .. } => receipt(Answer::Granted),
            Operation::Close { .. } => receipt(Answer::Closed),
        })
    })
}

#[test]
fn the_door_may_be_left_out_where_there_is_one_and_is_remembered() {
    let (home, testbed) = gateway_with(&["ssh"]);
    let said = home.doorknock(&["open", "home"]);
    assert!(said.code == Some(0) && said.out.starts_with("ssh open for 127.0.0.1 until "), "{said:?}");
    let said = home.doorknock(&["close", "home"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "ssh closed for 127.0.0.1"));
    let asked = testbed.heard.try_iter().filter(|request| matches!(request.operation, Operation::Ask { .. }));
    assert_eq!(asked.count(), 1, "what it told is remembered");
    let said = home.doorknock(&["ssh-config", "home"]);
    assert!(said.out.ends_with("proxy %h %p --server home --door ssh"), "{said:?}");
    let file = home.path(".config/doorknock/servers/home.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&file).unwrap().ends_with("\ndoors = [\"ssh\"]\n"));
}

#[test]
fn which_door_is_meant_is_never_guessed() {
    let (home, _house) = gateway_with(&["ssh", "web"]);
    // Asked, and remembered.
    for _ in 0..2 {
        let said = home.doorknock(&["open", "home"]);
        let expected = "doorknock: home has several doors for you: ssh, web; name one, or see them anew with \
                        doorknock ask home";
        assert_eq!((said.code, said.err.as_str()), (Some(1), expected));
    }
    let said = home.doorknock(&["proxy", "127.0.0.1", "9", "--server", "home"]);
    assert!(said.code == Some(1) && said.err.contains("several doors"), "{said:?}");
    let (home, _house) = gateway_with(&[]);
    let said = home.doorknock(&["open", "home", "--json"]);
    assert!(said.code == Some(1) && said.out.contains("home has no door for you"), "{said:?}");
    let (home, _house) = scene(|_, _| Some(receipt(Answer::TooMany)));
    let said = home.doorknock(&["open", "home"]);
    assert!(said.code == Some(5) && said.err.contains("home does not tell: too much is open"), "{said:?}");
}

#[test]
fn programs_read_one_object_in_a_line() {
    let (home, _house) = scene(|_, _| Some(Receipt { seconds: 30, ..receipt(Answer::Granted) }));
    let said = home.doorknock(&["open", "home", "ssh", "--json"]);
    assert!(said.out.starts_with("{\"server\":\"home\",\"address\":\"127.0.0.1:"), "{said:?}");
    assert!(said.out.contains("\"outcome\":\"open\",\"admitted\":\"127.0.0.1\",\"seconds\":30,"), "{said:?}");
    assert_eq!(said.out.lines().count(), 1);
}

#[test]
fn a_time_zone_that_is_no_file_holds_nothing_up() {
    let (home, _house) = scene(|_, _| Some(Receipt { seconds: 30, ..receipt(Answer::Granted) }));
    let fifo = home.path("fifo");
    run(std::process::Command::new("mkfifo").arg("-m").arg("600").arg(&fifo));
    for zone in [fifo.display().to_string(), format!(":{}", fifo.display())] {
        let said = Said::of(home.command(&["open", "home", "ssh"]).env("TZ", zone));
        assert!(said.out.starts_with("ssh open for 127.0.0.1 until "), "{said:?}");
    }
    let hour = |zone: &str| {
        let said = Said::of(home.command(&["open", "home", "ssh"]).env("TZ", zone));
        said.out.split("until ").nth(1).unwrap()[..2].to_owned()
    };
    let [before, named, after] = ["Etc/GMT+5", "/usr/share/zoneinfo/Etc/GMT+5", "Etc/GMT+5"].map(hour);
    assert!([&before, &after].contains(&&named), "{before} {named} {after}");
    assert_ne!(named, hour("UTC"));
}

#[test]
fn ipv6_opens_as_well() {
    let home = Home::new();
    let key = home.key(".ssh/id_ed25519", "ed25519", "");
    let testbed = Testbed::new("::1", public_key(&key), |_, _| Some(receipt(Answer::Granted)));
    add(&home, &testbed);
    let said = home.doorknock(&["open", "home", "ssh"]);
    assert!(said.out.starts_with("ssh open for ::1 until "), "{said:?}");
    let said = home.doorknock(&["open", "home", "ssh", "-4"]);
    assert_eq!(said.code, Some(1), "{said:?}");
}

#[test]
fn servers_are_kept_for_their_user_alone() {
    let (home, testbed) = scene(|_, _| None);
    let file = home.path(".config/doorknock/servers/home.toml");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));

    let said = home.doorknock(&["list"]);
    assert_eq!(said.out, format!("home  127.0.0.1  {}", testbed.port()));
    let said = home.doorknock(&["list", "--json"]);
    assert_eq!(
        said.out,
        format!("{{\"name\":\"home\",\"host\":\"127.0.0.1\",\"port\":{},\"error\":null}}", testbed.port())
    );

    let said = home.doorknock(&["add", "home", "192.0.2.1", &testbed.card]);
    assert_eq!((said.code, said.err.contains("--replace")), (Some(1), true), "{said:?}");
    let mut add = home.command(&["add", "home", "door.example.org", "-", "--replace"]);
    let mut child = add.stdin(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", testbed.card).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(home.doorknock(&["list"]).out, format!("home  door.example.org  {}", testbed.port()));
    let expected = "Host home\n    HostName door.example.org\n    \
                    ProxyCommand doorknock proxy %h %p --server home --door ssh";
    assert_eq!(home.doorknock(&["ssh-config", "home", "ssh"]).out, expected);
    assert_eq!(home.doorknock(&["ssh-config", "home", "ssh; id"]).code, Some(2));

    assert_eq!(home.doorknock(&["remove", "home"]).code, Some(0));
    assert_eq!(home.doorknock(&["remove", "home"]).code, Some(1));
    assert_eq!(home.doorknock(&["list"]).out, "");
    assert_eq!(home.doorknock(&["add", "../x", "192.0.2.1", &testbed.card]).code, Some(2));
}
