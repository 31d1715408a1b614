use doors_core::lease::Lease;
use doors_core::{door::DoorName, lease::GrantedTo, packet::Link, spa::client::ClientLabel};

use super::*;
use crate::{
    firewalld::zones::Zones,
    plan::{PlannedDoor, Ports, Refuse},
};

/// A state that follows a plan, and what it says.
struct Scene {
    state: State,
    news: mpsc::UnboundedReceiver<News>,
}

fn door(name: &str, ports: &[u16]) -> PlannedDoor {
    PlannedDoor {
        name: DoorName::new(name).unwrap(),
        ports: ports.iter().map(|port| Ports::tcp(*port)).collect(),
        open_for: Duration::from_secs(60),
        max_open_for: Duration::from_secs(600),
        once: false,
    }
}

fn plan(doors: Vec<PlannedDoor>) -> Plan {
    Plan {
        doors,
        trusted: Vec::new(),
        refuse: Refuse::Drop,
        mark: None,
        zone: None,
        check_every: Duration::from_secs(10),
        clean_every: Duration::from_secs(10),
        remove_on_exit: false,
    }
}

fn admission(door: &str, number: u8) -> GrantKey {
    GrantKey { door: DoorName::new(door).unwrap(), source: [192, 0, 2, number].into() }
}

fn rule(number: u8, port: u16) -> Rule {
    Rule { source: [192, 0, 2, number].into(), ports: Ports::tcp(port) }
}

impl Scene {
    fn new(doors: Vec<PlannedDoor>) -> Self {
        let mut scene = Self::in_role(Role::Alone, doors);
        scene.state.learn(Zones::default());
        scene
    }

    fn in_role(role: Role, doors: Vec<PlannedDoor>) -> Self {
        let (log_writer, news) = mpsc::unbounded_channel();
        Self { state: State::new(role, plan(doors), Clock::start(), log_writer), news }
    }

    fn now(&self) -> Moment {
        self.state.clock.now()
    }

    /// Grants a door for some seconds, and says until when.
    fn open(&mut self, door: &str, number: u8, seconds: u64) -> Moment {
        let until = self.now().after(Duration::from_secs(seconds));
        let admission = admission(door, number);
        self.state.note(Order::Change(Change::Open(Lease {
            key: admission,
            link: Link(0),
            until,
            granted_to: GrantedTo::Sequence,
            once: false,
        })));
        until
    }

    fn close(&mut self, door: &str, number: u8) {
        self.state.note(Order::Change(Change::Close(admission(door, number))));
    }

    /// Does all that is to be done, as firewalld would. Gives the tasks.
    fn work(&mut self) -> Vec<Task> {
        let mut tasks = Vec::new();
        if self.state.needs_zones() {
            self.state.learn(Zones::default());
        }
        while let Some((admission, waiting, task)) = self.state.next_task() {
            let outcome = done(&task);
            self.state.done(admission, waiting, outcome);
            tasks.push(task);
        }
        self.state.when_idle();
        tasks
    }

    /// What firewalld would hold after all that was done.
    fn rules(&self) -> Vec<(String, Vec<String>)> {
        let mut zones: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (rule, held) in &self.state.held {
            if let Some((zone, text)) = &held.place {
                zones.entry(zone.clone()).or_default().push(rule.text(*text));
            }
        }
        zones.into_iter().collect()
    }

    fn news(&mut self) -> Vec<News> {
        std::iter::from_fn(|| self.news.try_recv().ok()).collect()
    }
}

/// What comes of a task if everything works at once.
fn done(task: &Task) -> Outcome {
    let mut held = task.held.clone();
    for rule in &task.unwanted {
        held.insert(*rule, Installed::default());
    }
    for (rule, until) in &task.wanted {
        let place = Some(("public".to_owned(), task.texts.next()));
        held.insert(*rule, Installed { place, stale: Vec::new(), earliest: *until, latest: *until });
    }
    Outcome { held, failure: None, closing: task.closing }
}

#[test]
fn doors_that_share_a_port_share_its_rule_and_the_longest_decides() {
    let mut scene = Scene::new(vec![door("long", &[22]), door("short", &[22, 80])]);
    let long = scene.open("long", 7, 60);
    let short = scene.open("short", 7, 10);
    scene.work();
    let held = &scene.state.held;
    assert_eq!((held[&rule(7, 22)].latest, held[&rule(7, 80)].latest), (long, short));

    scene.close("long", 7);
    let tasks = scene.work();
    assert_eq!(tasks[0].wanted, [(rule(7, 22), short)], "it stays for the other door, and no longer");
    assert_eq!(tasks[0].unwanted, []);

    scene.close("short", 7);
    scene.work();
    assert!(scene.state.held.is_empty(), "{:?}", scene.state.held);
}

#[test]
fn no_rule_comes_back_after_a_reload_with_a_text_of_before() {
    let mut scene = Scene::new(vec![door("ssh", &[22])]);
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        scene.open("ssh", 7, 60);
        scene.work();
        for (_, rules) in scene.rules() {
            assert!(seen.insert(rules.clone()), "{rules:?}");
        }
        scene.state.put_back_all("firewalld was reloaded");
        scene.work();
        for (_, rules) in scene.rules() {
            assert!(seen.insert(rules.clone()), "{rules:?}");
        }
    }
}

#[test]
fn what_an_earlier_run_left_goes_when_its_grant_is_made_anew() {
    let mut scene = Scene::new(vec![door("ssh", &[22])]);
    let text = Texts::from(99).next();
    let left = ("public".to_owned(), vec![rule(7, 22).text(text), rule(8, 22).text(text)]);
    assert_eq!(scene.state.compare(&[left]), [], "it may be somebody's");
    scene.open("ssh", 7, 60);
    let (_, _, task) = scene.state.next_task().unwrap();
    assert_eq!(task.held[&rule(7, 22)].stale, [("public".to_owned(), text)]);
}

#[test]
fn what_a_reload_has_taken_is_put_back_and_what_a_person_has_taken_is_not() {
    for reloaded in [true, false] {
        let mut scene = Scene::new(vec![door("ssh", &[22])]);
        scene.open("ssh", 7, 60);
        scene.open("ssh", 8, 60);
        scene.work();
        scene.news();
        let mut rules = scene.rules();
        assert_eq!(scene.state.compare(&rules), []);
        assert_eq!(scene.work().len(), 0);
        rules[0].1.pop();
        scene.state.has_forgotten = reloaded;
        assert_eq!(scene.state.compare(&rules), []);
        let tasks = scene.work();
        let news = scene.news();
        let repaired = news.iter().any(|news| matches!(news, News::Repaired { .. }));
        let withdrawn = news.iter().any(
            |news| matches!(news, News::Report(Report::Withdrawn(one)) if one.key == admission("ssh", 8)),
        );
        assert_eq!((tasks.len(), repaired, withdrawn), (usize::from(reloaded), reloaded, !reloaded));
    }
}

#[test]
fn a_rule_that_goes_without_our_asking_is_missed_and_no_other() {
    let mut scene = Scene::new(vec![door("ssh", &[22])]);
    scene.open("ssh", 7, 60);
    scene.open("ssh", 8, 1);
    scene.work();
    let before = scene.rules()[0].1.clone();
    scene.state.note_removal(&before[1]);
    assert!(!scene.state.misses_a_rule(), "firewalld closes it on time");

    // The extension takes out the text of before, and hears of that before it hears that all is done.
    scene.open("ssh", 7, 90);
    let (admission, waiting, task) = scene.state.next_task().unwrap();
    scene.state.note_removal(&before[0]);
    let outcome = done(&task);
    scene.state.done(admission, waiting, outcome);
    assert!(!scene.state.misses_a_rule());

    let after = scene.rules()[0].1.clone();
    scene.state.note_removal("rule family=\"ipv4\" accept");
    assert!(!scene.state.misses_a_rule());
    scene.state.note_removal(&after[0]);
    assert!(scene.state.misses_a_rule());
    assert!(!scene.state.misses_a_rule(), "it is told once");
    scene.state.note_removal(&after[0].replace('"', ""));
    assert!(scene.state.misses_a_rule(), "as somebody may write it");
}

#[test]
fn a_second_bad_zone_leaves_the_good_one_of_before() {
    let mut scene = Scene::new(vec![door("ssh", &[22])]);
    let follow = |zone: Option<&str>| {
        let zone = zone.map(str::to_owned);
        Order::Follow(Box::new(Plan { zone, ..plan(vec![door("ssh", &[22])]) }))
    };
    scene.state.note(follow(Some("public")));
    scene.state.zone_is_known("public", Ok(()));
    for bad in ["bad", "worse"] {
        scene.state.note(follow(Some(bad)));
    }
    assert_eq!(scene.state.new_zone().as_deref(), Some("worse"));
    scene.state.zone_is_known("worse", Err("public".to_owned()));
    assert_eq!(scene.state.plan.zone.as_deref(), Some("public"));

    scene.state.note(follow(Some("bad")));
    scene.state.note(follow(None));
    scene.state.note(follow(Some("worse")));
    scene.state.zone_is_known("worse", Err("public".to_owned()));
    assert_eq!(scene.state.plan.zone, None, "no zone at all is good, too");
}

#[test]
fn a_door_whose_time_is_over_is_not_said_to_be_back() {
    let mut scene = Scene::new(vec![door("ssh", &[22])]);
    scene.open("ssh", 7, 60);
    scene.open("ssh", 8, 60);
    scene.work();
    scene.state.put_back_all("firewalld has started");
    scene.state.ledger.strike(&admission("ssh", 8));
    scene.work();
    let warnings: Vec<String> = scene
        .news()
        .into_iter()
        .filter_map(|news| match news {
            News::Warning(warning) => Some(warning),
            _ => None,
        })
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("firewalld has started, and 2 open doors were missing; put back 1 of 2"));
}

#[test]
fn who_replays_a_sequence_from_many_addresses_gets_a_part_of_the_room() {
    let mut scene = Scene::new(vec![door("ssh", &[22])]);
    let open = |scene: &mut Scene, number: u32, by: GrantedTo| {
        let until = scene.now().after(Duration::from_secs(60));
        let source = std::net::Ipv4Addr::from_bits(0x0a00_0000 | number).into();
        let admission = GrantKey { door: DoorName::new("ssh").unwrap(), source };
        scene.state.note(Order::Change(Change::Open(Lease {
            key: admission,
            link: Link(0),
            until,
            granted_to: by,
            once: false,
        })));
    };
    for number in 0..1500 {
        open(&mut scene, number, GrantedTo::Sequence);
    }
    open(&mut scene, 0, GrantedTo::Sequence);
    let who = ClientLabel { name: "anna".into(), fingerprint: "SHA256:x".into() };
    open(&mut scene, 5000, who.into());
    let tasks = scene.work();
    assert_eq!(tasks.len(), 257);
    assert_eq!(
        tasks[1].wanted[0].0.source,
        std::net::Ipv4Addr::new(10, 0, 19, 136),
        "after the one that is extended"
    );
    let warnings = scene.news().into_iter().filter(|news| matches!(news, News::Warning(_))).count();
    assert_eq!(warnings, 1);
}

/// Zones of which `public` is everybody's, and lets these ports through.
fn letting_through(ports: &[u16]) -> Zones {
    Zones::letting_through("public", ports.iter().map(|port| Ports::tcp(*port)).collect())
}

/// The sources for which a door was said to be open.
fn opened(scene: &mut Scene) -> Vec<IpAddr> {
    let report = |news| match news {
        News::Report(Report::Done(admission)) => Some(admission.source),
        _ => None,
    };
    scene.news().into_iter().filter_map(report).collect()
}

#[test]
fn beside_the_gate_firewalld_is_asked_only_for_what_it_would_close() {
    let mut scene = Scene::in_role(Role::BesideGate, vec![door("ssh", &[22]), door("web", &[22, 80])]);
    scene.state.learn(letting_through(&[22]));
    scene.open("ssh", 7, 60);
    assert_eq!(opened(&mut scene), [admission("ssh", 7).source], "at once");
    scene.open("web", 8, 60);
    assert!(opened(&mut scene).is_empty());
    let tasks = scene.work();
    let ruled: Vec<Rule> = tasks.iter().flat_map(|task| &task.wanted).map(|(rule, _)| *rule).collect();
    assert_eq!(ruled, [rule(8, 22), rule(8, 80)]);
    assert_eq!(opened(&mut scene), [admission("web", 8).source]);
}

#[test]
fn a_zone_that_closes_a_port_while_a_door_is_open_gets_its_rule() {
    let mut scene = Scene::in_role(Role::BesideGate, vec![door("ssh", &[22])]);
    scene.state.learn(letting_through(&[22]));
    scene.open("ssh", 7, 60);
    assert_eq!(scene.work().len(), 0);
    scene.state.unsettle();
    scene.state.learn(letting_through(&[]));
    assert_eq!(scene.work().len(), 1);
    // And one that opens it again needs no more of them.
    scene.state.unsettle();
    scene.state.learn(letting_through(&[22]));
    scene.open("ssh", 7, 90);
    assert_eq!(scene.work().len(), 0);
}

#[test]
fn what_waits_for_the_zones_is_open_when_they_let_it_through() {
    let mut scene = Scene::in_role(Role::BesideGate, vec![door("ssh", &[22])]);
    scene.open("ssh", 7, 60);
    assert!(scene.state.next_task().is_none());
    assert!(opened(&mut scene).is_empty());
    scene.state.learn(letting_through(&[22]));
    assert_eq!(scene.work().len(), 0);
    assert_eq!(opened(&mut scene), [admission("ssh", 7).source]);
}

#[test]
fn who_is_let_through_takes_no_room_from_those_who_need_a_rule() {
    let mut scene = Scene::in_role(Role::BesideGate, vec![door("ssh", &[22]), door("web", &[80])]);
    scene.state.learn(letting_through(&[22]));
    for number in 0..=255 {
        scene.open("ssh", number, 60);
    }
    assert_eq!(opened(&mut scene).len(), 256);
    scene.open("web", 7, 60);
    scene.work();
    assert_eq!(opened(&mut scene), [admission("web", 7).source]);
    // When all of them need one, they get as many as there is room for, and no call is made for the others.
    scene.state.unsettle();
    scene.state.learn(letting_through(&[]));
    assert_eq!(scene.work().len(), 255);
}
