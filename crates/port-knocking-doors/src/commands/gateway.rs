//! The commands about this machine's own key.

use std::{
    io,
    time::{Duration, SystemTime},
};

use clap::Subcommand;
use rand_core::UnwrapErr;

use crate::{
    config::Config,
    control::running,
    spa::gateway_key::{self, KeyError},
};

/// About this machine's own key.
#[derive(Debug, Subcommand)]
pub(crate) enum Gateway {
    /// Make the gateway key; an existing one is never overwritten
    Init,
    /// Print the gateway card, which every client needs
    Card {
        /// Draw it as a QR code, too
        #[arg(long)]
        qr: bool,
    },
    /// Make a new gateway key; the old one is accepted for some time more
    Rotate {
        /// For how many days the old card still works
        #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=3650))]
        keep: u64,
        /// Give up the card from before the last rotation, though it still works
        #[arg(long)]
        drop_older: bool,
    },
}

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the card is too long for a QR code")]
    Qr,
    #[error(
        "the card from before the last rotation still works, and a new rotation would end that: clients that have \
         not got the newest card would be locked out; to do it all the same: --drop-older"
    )]
    OlderCard,
    #[error(
        "{0} is written, but the running daemon cannot be asked to read it; try: systemctl reload port-knocking-doors"
    )]
    Daemon(String, #[source] io::Error),
}

impl GatewayError {
    /// Whether something that was given to us is wrong, so that nothing was touched.
    pub(crate) fn is_wrong_input(&self) -> bool {
        matches!(self, Self::OlderCard)
    }
}

/// Runs a command. Gives what there is to print.
pub(crate) fn run(command: &Gateway, config: &Config) -> Result<String, GatewayError> {
    let path = &config.gateway_key;
    let mut random = UnwrapErr(getrandom::SysRng);
    match command {
        Gateway::Init => {
            gateway_key::init(path, &mut random)?;
            let text = format!("written: {}\nits card: port-knocking-doors gateway card\n", path.display());
            Ok(text + ask_to_reload(config)?)
        }
        Gateway::Card { qr } => {
            let keys = gateway_key::load(path)?;
            let card = gateway_key::card_text(&keys);
            let drawn = match qr {
                true => gateway_key::qr(&card).ok_or(GatewayError::Qr)?,
                false => String::new(),
            };
            Ok(format!("{drawn}{}\n", *card))
        }
        Gateway::Rotate { keep, drop_older } => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let older = gateway_key::load(path)?.previous;
            if !drop_older && older.is_some_and(|(_, until)| until > now.as_secs()) {
                return Err(GatewayError::OlderCard);
            }
            let keep_for = Duration::from_secs(keep.saturating_mul(24 * 60 * 60));
            gateway_key::rotate(path, &mut random, now.as_secs(), keep_for)?;
            let text = format!(
                "a new key is in {}; the old card works for {keep} days more\n\
                 give the new card to every client: port-knocking-doors gateway card\n",
                path.display()
            );
            Ok(text + ask_to_reload(config)?)
        }
    }
}

/// Asks a running daemon to read the key. Gives a line about that.
fn ask_to_reload(config: &Config) -> Result<&'static str, GatewayError> {
    let failed = |error| GatewayError::Daemon(config.gateway_key.display().to_string(), error);
    let Some(file) = &config.path else { return Ok("") };
    match running::daemon_of(file).map_err(failed)? {
        Some(daemon) => {
            running::ask_to_reload(daemon).map_err(failed)?;
            Ok("the running daemon was asked to take it over; its log says whether it did\n")
        }
        None => Ok(""),
    }
}
