//! The definition file and the types of the program say the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::*;

/// The fields of a type, a method's parameters, its result, or an error: each with its type.
type Fields<'a> = BTreeMap<&'a str, &'a str>;

/// A definition, as far as ours goes.
#[derive(Default)]
struct Definition<'a> {
    types: BTreeMap<&'a str, Fields<'a>>,
    methods: BTreeMap<&'a str, (Fields<'a>, Fields<'a>)>,
    errors: BTreeMap<&'a str, Fields<'a>>,
}

fn fields(text: &str) -> Fields<'_> {
    let inner = text.trim().trim_start_matches('(').trim_end_matches(')');
    inner
        .split(',')
        .map(str::trim)
        .filter(|field| !field.is_empty())
        .map(|field| field.split_once(':').map_or((field, "word"), |(name, kind)| (name.trim(), kind.trim())))
        .collect()
}

impl<'a> Definition<'a> {
    fn read(text: &'a str) -> Self {
        let mut definition = Self::default();
        // Comments stand in lines of their own; a declaration begins at the start of a line.
        for part in text.split("\n\n").map(|part| part.trim_start_matches('\n')) {
            let begin = part.match_indices('\n').map(|(at, _)| at.saturating_add(1)).chain([0]);
            let begin = begin.filter(|at| !part[*at..].starts_with('#')).min().unwrap();
            let (keyword, rest) = part[begin..].trim().split_once(' ').unwrap();
            let name_end = rest.find(['(', ' ']).unwrap_or(rest.len());
            let (name, rest) = rest.split_at(name_end);
            match keyword {
                "interface" => assert_eq!(name, NAME),
                "type" => drop(definition.types.insert(name, fields(rest))),
                "error" => drop(definition.errors.insert(name, fields(rest))),
                "method" => {
                    let (given, result) = rest.split_once("->").unwrap();
                    definition.methods.insert(name, (fields(given), fields(result)));
                }
                other => panic!("{other}: {part}"),
            }
        }
        definition
    }

    /// Whether a value is what the definition calls `kind`.
    fn has(&self, kind: &str, value: &Value) {
        if let Some(of) = kind.strip_prefix("[]") {
            return value
                .as_array()
                .unwrap_or_else(|| panic!("{kind}: {value}"))
                .iter()
                .for_each(|value| self.has(of, value));
        }
        match kind {
            "string" => assert!(value.is_string(), "{value}"),
            "int" => assert!(value.is_i64(), "{value}"),
            "bool" => assert!(value.is_boolean(), "{value}"),
            named => {
                let fields = self.types.get(named).unwrap_or_else(|| panic!("no type {named}"));
                match value.as_str() {
                    Some(word) => assert_eq!(fields.get(word), Some(&"word"), "{named}: {word}"),
                    None => self.has_fields(fields, value),
                }
            }
        }
    }

    /// Whether an object has exactly these fields, but for optional ones that it may leave out.
    fn has_fields(&self, fields: &Fields<'_>, value: &Value) {
        let object = value.as_object().unwrap();
        for (name, value) in object {
            let kind = fields.get(&**name).unwrap_or_else(|| panic!("no field {name} in {fields:?}"));
            self.has(kind.trim_start_matches('?'), value);
        }
        for (name, kind) in fields {
            assert!(kind.starts_with('?') || object.contains_key(*name), "{name} is missing in {value}");
        }
    }
}

fn holder(all: bool) -> Holder {
    let text = |text: &str| all.then(|| text.to_owned());
    Holder {
        by: if all { By::Client } else { By::Sequence },
        client: text("phone"),
        fingerprint: text("SHA256:x"),
        note: text("note"),
        until: 1,
        seconds_left: 2,
    }
}

fn event(all: bool) -> Event {
    let text = |text: &str| all.then(|| text.to_owned());
    let (kind, level, said) = ("opened".to_owned(), "info".to_owned(), "opened".to_owned());
    let (door, address, client) = (text("ssh"), text("192.0.2.7"), text("phone"));
    let (fingerprint, until) = (text("SHA256:x"), all.then_some(2));
    Event { time: 1, kind, level, text: said, door, address, client, fingerprint, until }
}

/// What each method gives, with every optional field or with none.
fn results(all: bool) -> BTreeMap<&'static str, Value> {
    let text = |text: &str| all.then(|| text.to_owned());
    let count = || Count { count: 3, last: all.then(|| event(true)) };
    let door = Door {
        name: "ssh".into(),
        ports: vec!["22/tcp".into()],
        ports_in_all: 1,
        sequence: true,
        seconds: 10,
    };
    let status = Status {
        version: "2".into(),
        pid: 1,
        since: 2,
        configuration: text("/etc/x"),
        in_force_since: 3,
        last_good: text("why"),
        not_reloaded: text("why"),
        firewall: "nftables".into(),
        firewall_why: "why".into(),
        gate_since: all.then_some(4),
        gate_broken_since: all.then_some(4),
        listen: "capture".into(),
        doors: if all { vec![door] } else { vec![] },
        doors_in_all: 1,
        clients: 5,
        clients_heard: true,
        grants: 6,
        log_level: text("debug"),
        accepted: count(),
        refused: count(),
        repairs: count(),
        errors: count(),
    };
    let grant = Grant {
        door: "ssh".into(),
        address: "192.0.2.7".into(),
        holder: holder(all),
        others: vec![holder(all), Holder { by: By::Administrator, ..holder(all) }],
        since: 1,
        found: false,
        confirmed: true,
        one_connection: false,
    };
    let client = Client {
        name: "phone".into(),
        fingerprint: "SHA256:x".into(),
        doors: vec!["ssh".into()],
        from: vec!["192.0.2.0/24".into()],
        from_in_all: 1,
        longest: all.then_some(60),
        until: all.then_some(1),
        expired: false,
        disabled: false,
        last_seen: all.then_some(1),
        last_address: text("192.0.2.7"),
    };
    BTreeMap::from([
        ("Status", json!(StatusReply { status })),
        ("ListGrants", json!(GrantsReply { grants: vec![grant] })),
        ("ListClients", json!(ClientsReply { clients: vec![client] })),
        ("Open", json!(OpenReply { until: 1, seconds_left: 2 })),
        ("Close", json!(CloseReply { closed: 1, cut: 2 })),
        (
            "Reload",
            json!(ReloadReply {
                configuration: text("/etc/x"),
                doors: 1,
                needs_restart: vec!["listen".into()]
            }),
        ),
        ("SetLogLevel", json!(LevelReply { level: "info".into() })),
        ("Watch", json!(WatchReply { event: all.then(|| event(all)), lost: 0 })),
    ])
}

#[test]
fn the_definition_has_what_the_methods_give() {
    let definition = Definition::read(DEFINITION);
    for all in [true, false] {
        let results = results(all);
        let named: BTreeSet<_> = definition.methods.keys().copied().collect();
        assert_eq!(named, results.keys().copied().collect());
        for (method, result) in results {
            definition.has_fields(&definition.methods[method].1, &result);
        }
    }
    // Every field is among those that were compared: a field of the file that no type has would be optional and missing.
    let given = results(true);
    let (status, grants) = (&given["Status"]["status"], &given["ListGrants"]["grants"][0]);
    for (name, value) in [
        ("DaemonStatus", status),
        ("Count", &status["accepted"]),
        ("Event", &status["accepted"]["last"]),
        ("Door", &status["doors"][0]),
        ("Grant", grants),
        ("Holder", &grants["holder"]),
        ("Client", &given["ListClients"]["clients"][0]),
    ] {
        let fields: BTreeSet<_> = definition.types[name].keys().copied().collect();
        let has: BTreeSet<_> = value.as_object().unwrap().keys().map(|key| &**key).collect();
        assert_eq!(fields, has, "{name}");
    }
    let words: BTreeSet<String> = definition.types["By"].keys().map(|word| json!(word).to_string()).collect();
    let ours = [By::Sequence, By::Client, By::Administrator].map(|by| json!(by).to_string());
    assert_eq!(words, ours.into());
}

#[test]
fn no_type_has_the_name_of_a_method_or_an_error() {
    // Python's varlink package has one name space for all of them.
    let definition = Definition::read(DEFINITION);
    let others = definition.methods.keys().chain(definition.errors.keys());
    let both: Vec<_> = others.filter(|name| definition.types.contains_key(*name)).collect();
    assert!(both.is_empty(), "{both:?}");
}

#[test]
fn the_methods_take_what_the_definition_says_and_nothing_else() {
    let definition = Definition::read(DEFINITION);
    for (method, (given, _)) in &definition.methods {
        // "All" and the rest of Close exclude each other.
        let given: Fields<'_> =
            given.iter().filter(|(name, _)| **name != "all").map(|(n, k)| (*n, *k)).collect();
        let value = |name: &str, kind: &str| match (name, kind.trim_start_matches('?')) {
            ("address", "string") => json!("192.0.2.7"),
            ("level", "string") => json!("debug"),
            (_, "string") => json!("ssh"),
            (_, "int") => json!(60),
            (_, "bool") => json!(true),
            other => panic!("{other:?}"),
        };
        let all: Map<String, Value> =
            given.iter().map(|(name, kind)| ((*name).to_owned(), value(name, kind))).collect();
        Method::read(method, Some(all.clone())).unwrap();
        for (name, kind) in &given {
            let mut wrong = all.clone();
            wrong.insert((*name).to_owned(), json!([1.5]));
            assert_eq!(Method::read(method, Some(wrong)), Err(Refused::parameter(name)), "{method}");
            let mut without = all.clone();
            without.remove(*name);
            let is_optional = kind.starts_with('?');
            assert_eq!(Method::read(method, Some(without)).is_ok(), is_optional, "{method} without {name}");
        }
        let mut more = all.clone();
        more.insert("more".into(), json!(1));
        assert_eq!(Method::read(method, Some(more)), Err(Refused::parameter("more")), "{method}");
    }
    assert_eq!(
        Method::read("Close", Some(Map::from_iter([("all".into(), json!(true))]))),
        Ok(Method::Close { which: Which::default(), cut: false })
    );
    assert_eq!(Method::read("Close", None), Err(Refused::parameter("all")));
}

#[test]
fn every_error_is_in_the_definition_and_is_read_back() {
    let text = || "text".to_owned();
    let failures = [
        Failure::NoSuchDoor(text()),
        Failure::NoSuchClient(text()),
        Failure::NotEligible { address: text(), why: text() },
        Failure::TooMany,
        Failure::FirewallSlow,
        Failure::FirewallFull,
        Failure::NotCut(text()),
        Failure::NotReloaded(text()),
        Failure::Busy,
        Failure::StillReading,
        Failure::TooManyConnections,
        Failure::TooManyWatchers,
        Failure::AnswerTooLong,
    ];
    let definition = Definition::read(DEFINITION);
    assert_eq!(definition.errors.len(), failures.len());
    for failure in failures {
        let refused = Refused::from(failure.clone());
        let name = refused.error.strip_prefix(NAME).unwrap().strip_prefix('.').unwrap();
        definition.has_fields(&definition.errors[name], &Value::Object(refused.parameters.clone()));
        assert_eq!(Failure::read(&refused), Some(failure));
    }
}
