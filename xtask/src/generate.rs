//! Files that are made from the sources, so that they cannot say anything else.

use std::{fs, path::Path};

use doors_core::{door::Sequence, limits};
use port_knocking_doors::{commands, config::keys};

use crate::programs::Failure;

/// Writes them, or with `check` says which is not current.
pub(crate) fn run(check: bool) -> Result<(), Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut stale = Vec::new();
    for (path, text) in files()? {
        let file = root.join(&path);
        if fs::read(&file).ok().as_deref() == Some(text.as_bytes()) {
            continue;
        }
        if check {
            stale.push(path);
        } else {
            if let Some(directory) = file.parent() {
                fs::create_dir_all(directory)?;
            }
            fs::write(&file, text)?;
            println!("written: {path}");
        }
    }
    match stale.is_empty() {
        true => Ok(()),
        false => Err(format!("not current: {}; run: cargo xtask generate", stale.join(", ")).into()),
    }
}

fn files() -> Result<Vec<(String, String)>, Failure> {
    let mut files = vec![
        ("docs/configuration.md".to_owned(), configuration()),
        ("dist/port_knocker.toml".to_owned(), keys::installed_file()),
    ];
    manual_pages("dist/man", commands::command(), "8", &mut files)?;
    manual_pages("dist/man", doorknock::cli::command(), "1", &mut files)?;
    Ok(files)
}

fn configuration() -> String {
    format!(
        "# The configuration file\n\n\
         <!-- Made by `cargo xtask generate` from the one place where the keys are defined. -->\n\n\
         TOML, looked for in this order: the file that `--conf` names, `.port_knocker.toml` in the home \
         directory,\n`/etc/port_knocker.toml`. Without a file, default values are used. All times are in \
         seconds.\n\nAn option goes before a variable of the environment (`KNOCKER_SEQ`, `KNOCKER_PORTS`), \
         that before the file,\nthat before the default. What is in force, and who said so, is shown by \
         `port-knocking-doors check`.\n\nA file that exists and cannot be used is an error, never passed over: \
         each fault is named with line and column,\nup to 20. A file that\nanother user could have written is refused: it has to belong to root, or to the user that the daemon runs \
         as, and only the\nowner, or the group of the owner's own name, may write to it. A symbolic link may lead to it.\n\n{}\n{}",
        keys::manual(),
        bounds()
    )
}

/// What a configuration can hold, and why not more.
fn bounds() -> String {
    let (doors, clients, megabytes) = (limits::DOORS, limits::CLIENTS, keys::LARGEST_FILE >> 20);
    format!(
        "## Bounds\n\nA configuration that goes beyond one of these is refused; the message names the bound.\n\n\
         | what | at most | why not more |\n|---|---|---|\n\
         | doors | {doors} | a client can ask for all of them, three in a datagram, in less than a minute |\n\
         | ports of a sequence | {} | as in the first version |\n\
         | clients, here, in `clients_dir` and in `authorized_keys` together | {clients} | what is remembered of all of them takes less \
         than half a gigabyte |\n\
         | the configuration file, `authorized_keys`, and all files of clients together | {megabytes} megabytes each | enough for the most clients, \
         with {} bytes for each |\n",
        Sequence::MAX_LEN,
        keys::LARGEST_FILE.checked_div(limits::CLIENTS).unwrap_or_default(),
    )
}

/// A page for the program and one for each of its commands.
fn manual_pages(
    directory: &str,
    command: clap::Command,
    section: &str,
    files: &mut Vec<(String, String)>,
) -> Result<(), Failure> {
    let mut command = command.flatten_help(false);
    command.build();
    let name = command.get_name().to_owned();
    page(directory, &name, section, command.clone(), files)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let full = format!("{name}-{}", sub.get_name());
        page(directory, &full, section, sub.clone(), files)?;
    }
    Ok(())
}

fn page(
    directory: &str,
    name: &str,
    section: &str,
    command: clap::Command,
    files: &mut Vec<(String, String)>,
) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).section(section).render(&mut text)?;
    files.push((format!("{directory}/{name}.{section}"), String::from_utf8(text)?));
    Ok(())
}
