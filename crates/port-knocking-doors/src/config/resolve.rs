//! Puts the values of a configuration together, and says where each comes from.

use std::{path::PathBuf, sync::Arc};

use doors_core::access::Rules;
use doors_firewall::plan::Plan;

use super::{
    Config, ConfigError, Setting, Version, clients,
    doors::{self, Resolved},
    file::File,
    keys,
    origin::Origin,
    warnings,
};

/// Resolves what a file says, and what options have put in its place.
pub(super) fn resolve(mut file: File, path: Option<PathBuf>) -> Result<Config, ConfigError> {
    let doors = doors::resolve(&mut file, path.is_some());
    let mut rules = Rules {
        doors: doors.iter().map(Resolved::for_core).collect(),
        quiet_after_wrong: file.quiet_after_wrong.value,
        forget_after: file.forget_after.value,
        clients: Arc::default(),
    };
    let mut of_clients_settings = Vec::new();
    let key_access = clients::resolve(&mut file, &rules, |key, value, origin| {
        of_clients_settings.push(Setting { key, value, origin });
    });
    if let Some(access) = &key_access {
        rules.clients = Arc::clone(&access.clients);
    }
    // With a fault, what does not fit together may fit when that is mended.
    if file.faults.is_empty() {
        let (listen, firewall) = (file.listen.value, file.firewall.value);
        let spa_port = key_access.as_ref().map(|access| access.port);
        doors::fit_together(&rules, &doors, listen, firewall, spa_port, &mut file.faults);
        doors::can_mark(file.mark.as_ref(), firewall, &mut file.faults);
    }
    std::mem::take(&mut file.faults).into_result()?;

    let mut settings = settings(&mut file, &doors, key_access.is_some());
    settings.extend(of_clients_settings);
    let of_clients = doors::of_clients(key_access.as_ref().map(|access| &*access.clients));
    let plan = Plan {
        doors: doors.iter().map(|door| door.for_firewall(&of_clients)).collect(),
        trusted: file.trusted.value,
        refuse: file.refuse.value,
        mark: file.mark.map(|mark| mark.value),
        zone: file.zone.value,
        check_every: file.check_period.value,
        clean_every: file.clean_period.value,
        remove_on_exit: file.remove_on_exit.value,
    };
    let mut warnings = warnings::of(&rules, file.listen.value);
    warnings.extend(warnings::everybody(&plan.trusted));
    warnings.extend(plan.doors.is_empty().then_some(warnings::Warning::NoDoor));
    warnings.extend(warnings::useless(&rules, &of_clients));
    Ok(Config {
        rules,
        plan,
        hearing: file.listen.value,
        firewall: file.firewall.value,
        key_access: key_access.map(Arc::new),
        gateway_key: file.gateway_key.value,
        state_dir: file.state_dir.value,
        path,
        opened: None,
        version: Version::default(),
        control_groups: [file.control_group, file.control_read_group]
            .map(|group| group.map(|group| group.value)),
        settings,
        warnings,
        texts: None,
        instead_of: None,
    })
}

/// Every value in force, but for those of clients.
fn settings(file: &mut File, doors: &[Resolved], has_clients: bool) -> Vec<Setting> {
    let setting =
        |(key, value, origin): (&str, String, Origin)| Setting { key: key.to_owned(), value, origin };
    let first_for_clients = keys::TOP.iter().position(|key| key.name == "spa_port").unwrap_or_default();
    let (general, for_clients) = keys::TOP.split_at_checked(first_for_clients).unwrap_or_default();
    let mut settings: Vec<Setting> = keys::shown(general.iter(), file).map(setting).collect();
    for door in doors.iter().filter(|door| !door.is_default()) {
        let of_door = keys::DOOR.iter().filter(|key| key.name != "name");
        for (key, value, origin) in keys::shown(of_door, &mut door.values.clone()) {
            settings.push(Setting { key: format!("doors.{}.{key}", door.name.value), value, origin });
        }
    }
    // Without clients these are listed only where an administrator has written them.
    let matters = |setting: &Setting| has_clients || setting.origin != Origin::Default;
    settings.extend(keys::shown(for_clients.iter(), file).map(setting).filter(matters));
    settings
}
