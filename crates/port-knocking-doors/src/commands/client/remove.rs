//! Removes a client.

use std::fs;

use super::{ClientError, change::Change};
use crate::config::{Inputs, Place, file_of, is_client_name, origin::Origin};

/// Removes a client. Gives what there is to print.
pub(super) fn remove(name: &str, inputs: &Inputs) -> Result<String, ClientError> {
    let mut change = Change::begin(inputs, false)?;
    let done = format!("removed: {name}");
    if change.texts.clients.text_of(name).is_some() {
        let mut texts = change.texts.clone();
        texts.clients.remove(name);
        change.check(&texts).map_err(ClientError::New)?;
        let path = file_of(&change.directory, name);
        fs::remove_file(&path).map_err(|source| ClientError::Remove { path, source })?;
        // The file is gone, and the daemon has to hear of it, whatever the disk says.
        let synced = change.synced();
        change.texts = texts;
        let told = change.finish(done.clone())?;
        return synced.map(|()| told).map_err(|source| ClientError::NotSynced { done, source });
    }
    if let Some(place) = change.named(name) {
        return Err(elsewhere(&change, place));
    }
    // A removal that was cut short, or a file that an administrator has removed by hand.
    if is_client_name(name) && (change.is_daemon_behind().is_ok_and(|behind| behind) || change.is_kept(name))
    {
        return change.finish(format!("there is no client {name} any more"));
    }
    Err(ClientError::Unknown { name: name.to_owned(), hint: hint(&change, name) })
}

/// A client that an administrator has written.
pub(super) fn elsewhere(change: &Change<'_>, place: &Place) -> ClientError {
    let in_keys = |origin: &Origin| match (origin, &change.texts.keys) {
        (Origin::File(position), Some((keys, _))) => *position.path == **keys,
        _ => false,
    };
    let what = if in_keys(&place.origin) { "that line" } else { "its [[clients]]" };
    ClientError::Elsewhere { name: place.name.to_string(), at: place.origin.to_string(), what }
}

/// The name that was meant, or those that there are.
pub(super) fn hint(change: &Change<'_>, name: &str) -> String {
    const SHOWN: usize = 20;
    let likeness = |other: &str| strsim::jaro_winkler(other, name);
    let nearest = change.names().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        None => "there is none at all".to_owned(),
        Some(nearest) if likeness(nearest) > 0.75 => format!("did you mean `{nearest}`?"),
        Some(_) => {
            let names: Vec<&str> = change.names().take(SHOWN).collect();
            let more = change.names().count().saturating_sub(names.len());
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            format!("there are: {}{more}", names.join(", "))
        }
    }
}
