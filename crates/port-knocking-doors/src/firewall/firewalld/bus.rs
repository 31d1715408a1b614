//! The system bus, and who is on it.

use zbus::{Connection, fdo::DBusProxy, names::BusName};

/// firewalld's name on the bus.
pub(crate) const FIREWALLD: &str = "org.fedoraproject.FirewallD1";

/// A connection to the system bus.
#[derive(Clone, Debug)]
pub(crate) struct Bus {
    pub(super) connection: Connection,
}

impl Bus {
    /// Connects to the bus that `DBUS_SYSTEM_BUS_ADDRESS` names, else to the usual one.
    pub(crate) async fn connect() -> zbus::Result<Self> {
        Connection::system().await.map(|connection| Self { connection })
    }

    /// Whether firewalld is there.
    pub(crate) async fn firewalld_runs(&self) -> zbus::Result<bool> {
        let bus = DBusProxy::new(&self.connection).await?;
        Ok(bus.name_has_owner(BusName::try_from(FIREWALLD)?).await?)
    }
}
