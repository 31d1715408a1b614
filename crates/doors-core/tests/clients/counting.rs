//! The counters.

use doors_core::counters::Counters;
use doors_spa::receipt::Answer;

use crate::scene::{LAPTOP, OTHER, PHONE, SOURCE, Scene, client, open, rules_with_sequence};

#[test]
fn each_thing_that_happens_is_counted_once() {
    let mut scene = Scene::new();
    scene.engine.change_rules(rules_with_sequence(), scene.now, doors_core::time::Wall(scene.wall)).unwrap();
    let mut counted = Counters::default();
    assert_eq!(scene.engine.counters(), counted);

    scene.knock(OTHER.parse().unwrap());
    scene.work();
    (counted.knocks_right, counted.granted_by_sequence) = (5, 1);
    assert_eq!(scene.engine.counters(), counted);

    let stranger = "203.0.113.5";
    scene.knock_once(stranger.parse().unwrap(), 4711);
    scene.knock_once(stranger.parse().unwrap(), 7001);
    (counted.knocks_wrong, counted.knocks_ignored) = (1, 1);
    assert_eq!(scene.engine.counters(), counted);

    let request = scene.request(open("ssh", 60));
    let sealed = scene.seal(&request, LAPTOP);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
    counted.granted_by_key = 1;
    assert_eq!(scene.engine.counters(), counted);

    assert_eq!(scene.send(SOURCE, &sealed.bytes), None);
    counted.dropped = 1;
    assert_eq!(scene.engine.counters(), counted);

    assert_eq!(scene.opens("admin", 60), Answer::NotAllowed);
    counted.refused = 1;
    assert_eq!(scene.engine.counters(), counted);

    // The grant is over before the firewall has made it, and the client has waited in vain.
    scene.set_clients([client(LAPTOP), client(PHONE)]);
    scene.firewall_works = false;
    let request = scene.request(open("once", 1));
    let sealed = scene.seal(&request, PHONE);
    assert_eq!(scene.send(SOURCE, &sealed.bytes), None);
    scene.wait(60);
    (counted.granted_by_key, counted.not_opened) = (2, 2);
    assert_eq!(scene.engine.counters(), counted);
}
