//! Puts the values of a configuration together, and says where each comes from.

use std::{path::PathBuf, sync::Arc, time::Duration};

use doors_core::access::Rules;
use doors_firewall::FirewallChoice;
use doors_firewall::plan::{Plan, Refuse};
use ipnet::IpNet;

use super::{
    Config, ConfigError, Hearing, Setting, clients,
    doors::{self, DefaultDoor, Resolved},
    file::{self, File},
    origin::Sourced,
    warnings,
};

/// Puts the values together, and keeps the list of them.
pub(super) struct Resolver {
    pub(super) settings: Vec<Setting>,
}

impl Resolver {
    pub(super) fn resolve(
        mut self,
        default_door: DefaultDoor,
        file: File,
        path: Option<PathBuf>,
    ) -> Result<Config, ConfigError> {
        let seconds = |number| Sourced::default(Duration::from_secs(number));
        let open_for = file.open_for.unwrap_or(seconds(10));
        let doors = doors::resolve(default_door, file.doors, &open_for, path.is_some())?;
        for door in doors.iter().filter(|door| door.is_default()) {
            let ports: Vec<u16> = door.ports.value.iter().map(|ports| ports.first).collect();
            self.note("ports_to_controls", &door.ports, |_| list(&ports));
            if let Some(sequence) = &door.sequence {
                self.note("opening_sequence", sequence, |sequence| list(sequence.ports()));
            }
        }
        let check = file.check_period.unwrap_or(seconds(10));
        self.note("firewall_rules_check_periode_seconds", &check, in_seconds);
        let quiet = file.quiet_after_wrong.unwrap_or(seconds(5));
        self.note("ignoring_period_after_knock_error", &quiet, in_seconds);
        let forget = file.forget_after.unwrap_or(seconds(30));
        self.note("max_knocker_live_time", &forget, in_seconds);
        self.note("max_opened_door_duration", &open_for, in_seconds);
        let clean = file.clean_period.unwrap_or(seconds(10));
        self.note("doors_cleanup_periode", &clean, in_seconds);
        let firewall = file.firewall.unwrap_or(Sourced::default(FirewallChoice::Auto));
        self.note("firewall", &firewall, |choice| word(&FirewallChoice::WORDS, choice));
        let listen = file.listen.unwrap_or(Sourced::default(Hearing::Capture));
        self.note("listen", &listen, |hearing| word(&Hearing::WORDS, hearing));
        let zone = file.zone.unwrap_or(Sourced::default(None));
        self.note("zone", &zone, |zone| format!("{:?}", zone.as_deref().unwrap_or("auto")));
        let refuse = file.refuse.unwrap_or(Sourced::default(Refuse::Drop));
        self.note("refuse", &refuse, |refuse| {
            word(&[("drop", Refuse::Drop), ("reject", Refuse::Reject)], refuse)
        });
        let trusted: Sourced<Vec<IpNet>> = file.trusted.unwrap_or(Sourced::default(Vec::new()));
        self.note("trusted", &trusted, |networks| quoted(networks));
        if let Some(mark) = &file.mark {
            self.note("mark", mark, ToString::to_string);
        }
        let on_exit = file.remove_on_exit.unwrap_or(Sourced::default(false));
        self.note("on_exit", &on_exit, |remove| word(&[("keep", false), ("remove", true)], remove));
        for door in doors.iter().filter(|door| !door.is_default()) {
            let key = |key: &str| format!("doors.{}.{key}", door.name.value);
            self.note(&key("ports"), &door.ports, |ports| quoted(ports));
            if let Some(sequence) = &door.sequence {
                self.note(&key("sequence"), sequence, |sequence| list(sequence.ports()));
            }
            self.note(&key("open_for"), &door.open_for, in_seconds);
            self.note(&key("max_open_for"), &door.max_open_for, in_seconds);
            self.note(&key("grant"), &door.once, |once| word(&file::GRANT_WORDS, once));
            self.note(&key("require_address"), &door.require_address, ToString::to_string);
        }

        let mut rules = Rules {
            doors: doors.iter().map(Resolved::for_core).collect(),
            quiet_after_wrong: quiet.value,
            forget_after: forget.value,
            clients: Arc::default(),
        };
        let gateway_key = clients::gateway_key(file.gateway_key.as_ref());
        let state_dir = clients::state_dir(file.state_dir.as_ref());
        let key_access = clients::resolve(
            file.clients,
            clients::Sourced {
                port: file.spa_port,
                window: file.spa_window,
                gateway_key: file.gateway_key,
                state_dir: file.state_dir,
                authorized_keys: file.authorized_keys,
                authorized_keys_doors: file.authorized_keys_doors,
            },
            &rules,
            |key, value, origin| self.settings.push(Setting { key: key.to_owned(), value, origin }),
        )?;
        if let Some(access) = &key_access {
            rules.clients = Arc::clone(&access.clients);
        }
        let spa_port = key_access.as_ref().map(|access| access.port);
        doors::fit_together(&rules, &doors, listen.value, firewall.value, spa_port)?;
        let of_clients = doors::of_clients(key_access.as_ref().map(|access| &*access.clients));
        doors::can_mark(file.mark.as_ref(), firewall.value)?;
        let plan = Plan {
            doors: doors.iter().map(|door| door.for_firewall(&of_clients)).collect(),
            trusted: trusted.value,
            refuse: refuse.value,
            mark: file.mark.map(|mark| mark.value),
            zone: zone.value,
            check_every: check.value,
            clean_every: clean.value,
            remove_on_exit: on_exit.value,
        };
        let mut warnings = warnings::of(&rules, listen.value);
        warnings.extend(warnings::everybody(&plan.trusted));
        warnings.extend(plan.doors.is_empty().then_some(warnings::Warning::NoDoor));
        warnings.extend(warnings::useless(&rules, &of_clients));
        Ok(Config {
            rules,
            plan,
            hearing: listen.value,
            firewall: firewall.value,
            key_access: key_access.map(Arc::new),
            gateway_key,
            state_dir,
            path,
            opened: None,
            settings: self.settings,
            warnings,
            texts: None,
            instead_of: None,
        })
    }

    fn note<T>(&mut self, key: &str, from: &Sourced<T>, text: impl FnOnce(&T) -> String) {
        let (value, origin) = (text(&from.value), from.origin.clone());
        self.settings.push(Setting { key: key.to_owned(), value, origin });
    }
}

fn in_seconds(time: &Duration) -> String {
    time.as_secs().to_string()
}

fn list(ports: &[u16]) -> String {
    format!("{ports:?}")
}

fn quoted<T: ToString>(items: &[T]) -> String {
    format!("{:?}", items.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn word<T: PartialEq>(words: &[(&str, T)], value: &T) -> String {
    let found = words.iter().find(|(_, other)| other == value);
    format!("{:?}", found.map_or("", |(word, _)| word))
}
