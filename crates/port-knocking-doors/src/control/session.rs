//! One connection to the control socket: reads calls, checks them, and writes the replies, one call after the other.

use std::{collections::BTreeMap, io, sync::PoisonError, time::Duration};

use doors_core::{
    door::{DoorName, GrantKey},
    lease::Note,
};
use doors_os::clock::Clock;
use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::level_filters::LevelFilter;

use super::{
    interface::{
        CloseReply, DEFINITION, Failure, LevelReply, Method, NAME, OpenReply, Right, StatusReply, WatchReply,
    },
    protocol::{Call, Frames, LONGEST, Refused, Reply, SERVICE, framed},
    request::Request,
    shown::{Page, client_of, date, event_of, grant_of, left, number},
};
use crate::observe::{
    facts::LastSeen,
    watch::{QUEUE, Seen, Watched},
};

/// A connection on which nothing happens for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A peer that does not read a reply for this long is disconnected.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that reads nothing of what it watches for this long is disconnected.
const WATCH_TIMEOUT: Duration = Duration::from_secs(600);
/// The loop answers within this time, unless it hangs.
const LOOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The firewall does what it is asked within this time, unless it hangs.
const FIREWALL_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer reads the list of clients within this time.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);
/// The configuration is read within this time: 100,000 keys on a slow machine.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Very many doors are closed within this time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections are ended within this time, unless there are very many.
const CUT_TIMEOUT: Duration = Duration::from_secs(30);

/// The definition of the interface that every Varlink service has. Source: varlink.org.
const SERVICE_DEFINITION: &str = "\
# What every Varlink service can be asked.
interface org.varlink.service

method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)

error MethodNotFound (method: string)

error MethodNotImplemented (method: string)

error InvalidParameter (parameter: string)

error PermissionDenied ()

error ExpectedMore ()
";

/// What a peer without any right gets, whatever it asks.
pub(super) fn denied() -> Vec<u8> {
    framed(&Reply::from(Refused::denied())).unwrap_or_default()
}

/// What a peer gets beyond the bounds on connections.
pub(super) fn too_many() -> Vec<u8> {
    framed(&Reply::from(Refused::from(Failure::TooManyConnections))).unwrap_or_default()
}

/// The connection is over.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// One connection.
pub(super) struct Session {
    user: u32,
    right: Right,
    clock: Clock,
    requests: mpsc::Sender<Request>,
    last_seen: LastSeen,
}

/// The stream, and how the present call is to be answered.
struct Peer {
    stream: UnixStream,
    frames: Frames,
    oneway: bool,
}

impl Session {
    pub(super) fn new(
        user: u32,
        right: Right,
        clock: Clock,
        requests: mpsc::Sender<Request>,
        last_seen: LastSeen,
    ) -> Self {
        Self { user, right, clock, requests, last_seen }
    }

    /// Answers until the peer hangs up, or does what no client does.
    pub(super) async fn run(&self, stream: UnixStream) {
        let mut peer = Peer { stream, frames: Frames::default(), oneway: false };
        while let Ok(call) = peer.next_call().await {
            if self.answer(call, &mut peer).await.is_err() {
                return;
            }
            // Others have their turn, however many calls have come at once.
            tokio::task::yield_now().await;
        }
    }

    async fn answer(&self, call: Call, peer: &mut Peer) -> Result<(), Over> {
        peer.oneway = call.oneway;
        match self.carry_out(call, peer).await {
            Ok(()) => Ok(()),
            Err(Stop::Over) => Err(Over),
            Err(Stop::Refused(refused)) => peer.send(&Reply::from(refused)).await,
        }
    }

    async fn carry_out(&self, call: Call, peer: &mut Peer) -> Result<(), Stop> {
        let (interface, name) = call.method.rsplit_once('.').unwrap_or_default();
        match interface {
            SERVICE => Ok(peer.finish(&of_service(name, call.parameters.unwrap_or_default())?).await?),
            NAME => {
                let method = Method::read(name, call.parameters)?;
                if method.changes() && self.right != Right::Change {
                    return Err(Refused::denied().into());
                }
                if method.needs_more() && (!call.more || call.oneway) {
                    return Err(Refused::expected_more().into());
                }
                self.serve(method, peer).await
            }
            other => Err(Refused::of_service("InterfaceNotFound", "interface", other).into()),
        }
    }

    async fn serve(&self, method: Method, peer: &mut Peer) -> Result<(), Stop> {
        match method {
            Method::Status => {
                let status = *self.ask(Request::Status, LOOP_TIMEOUT).await?;
                Ok(peer.finish(&StatusReply { status }).await?)
            }
            Method::ListGrants => self.list_grants(peer).await,
            // However slowly it reads, a peer holds a table of clients that was replaced no longer than this.
            Method::ListClients => timeout(LIST_TIMEOUT, self.list_clients(peer)).await.map_err(|_| Over)?,
            Method::Open { door, address, open_for, note } => {
                let Ok(name) = DoorName::new(&door) else { return Err(Failure::NoSuchDoor(door).into()) };
                let note = Note::new(&note).ok_or_else(|| Refused::parameter("note"))?;
                let key = GrantKey { door: name, source: address };
                let user = self.user;
                let request = |answer| Request::Open { user, key, open_for, note, answer };
                let until = self.wait(request, FIREWALL_TIMEOUT, Failure::FirewallSlow).await??;
                let (now, wall) = (self.clock.now(), self.clock.wall());
                let reply = OpenReply { until: date(until, now, wall), seconds_left: left(until, now) };
                Ok(peer.finish(&reply).await?)
            }
            Method::Close { which, cut } => {
                let user = self.user;
                // Ordered at once: however long the doors take, the connections are ended.
                let (cut, ended) = cut.then(oneshot::channel).unzip();
                let request = |answer| Request::Close { user, which, cut, answer };
                let closed = number(self.wait(request, CLOSE_TIMEOUT, Failure::FirewallSlow).await??);
                let ended = match ended {
                    None => 0,
                    Some(ended) => match timeout(CUT_TIMEOUT, ended).await {
                        Ok(Ok(Ok(count))) => number(count),
                        Ok(Ok(Err(why))) => return Err(Failure::NotCut(why).into()),
                        Ok(Err(_)) | Err(_) => {
                            return Err(Failure::NotCut("it takes too long".to_owned()).into());
                        }
                    },
                };
                Ok(peer.finish(&CloseReply { closed, cut: ended }).await?)
            }
            Method::Reload => {
                let request = |answer| Request::Reload(self.user, answer);
                let reply = self.wait(request, RELOAD_TIMEOUT, Failure::StillReading).await?;
                Ok(peer.finish(&reply.map_err(Failure::NotReloaded)?).await?)
            }
            Method::SetLogLevel { level, back_after } => {
                let level: Option<LevelFilter> = level.parse().ok().filter(|_| !level.is_empty());
                let level = level.ok_or_else(|| Refused::parameter("level"))?;
                let user = self.user;
                let request = |answer| Request::SetLevel { user, level, back_after, answer };
                self.ask(request, LOOP_TIMEOUT).await?;
                Ok(peer.finish(&LevelReply { level: level.to_string() }).await?)
            }
            Method::Watch(watched) => self.watch(watched, peer).await,
        }
    }

    async fn list_grants(&self, peer: &mut Peer) -> Result<(), Stop> {
        let (mut page, mut after) = (Page::default(), None);
        loop {
            let grants = self.ask(|answer| Request::Grants(after.take(), answer), LOOP_TIMEOUT).await?;
            let Some(last) = grants.last() else { break };
            after = Some(last.lease.key.clone());
            let (now, wall) = (self.clock.now(), self.clock.wall());
            for grant in grants {
                if let Some(grants) = page.add(&grant_of(&grant, now, wall)) {
                    peer.go_on(&entries("grants", grants)).await?;
                }
            }
        }
        Ok(peer.finish(&entries("grants", page.take())).await?)
    }

    async fn list_clients(&self, peer: &mut Peer) -> Result<(), Stop> {
        let clients = self.ask(Request::Clients, LOOP_TIMEOUT).await?;
        let mut page = Page::default();
        let (now, wall) = (self.clock.now(), self.clock.wall());
        for client in clients.iter() {
            let seen =
                self.last_seen.lock().unwrap_or_else(PoisonError::into_inner).get(&client.who).copied();
            if let Some(clients) = page.add(&client_of(client, seen, now, wall)) {
                peer.go_on(&entries("clients", clients)).await?;
                // Making pages of 100,000 clients leaves others their turn.
                tokio::task::yield_now().await;
            }
        }
        Ok(peer.finish(&entries("clients", page.take())).await?)
    }

    /// Tells what happens until the peer hangs up or the daemon ends.
    async fn watch(&self, watched: Watched, peer: &mut Peer) -> Result<(), Stop> {
        let (queue, mut seen): (_, mpsc::Receiver<Seen>) = mpsc::channel(QUEUE);
        let is_root = self.user == 0;
        let request = |answer| Request::Watch { is_root, watched, queue, answer };
        if !self.ask(request, LOOP_TIMEOUT).await? {
            return Err(Failure::TooManyWatchers.into());
        }
        peer.go_on(&WatchReply { event: None, lost: 0 }).await?;
        loop {
            let seen = tokio::select! {
                seen = seen.recv() => seen.ok_or(Over)?,
                over = peer.hung_up() => return Err(over.into()),
            };
            let lost = i64::try_from(seen.lost).unwrap_or(i64::MAX);
            let reply = WatchReply { event: Some(event_of(&seen.what, seen.at, seen.wall)), lost };
            let message = framed(&Returned { parameters: &reply, continues: true }).ok_or(Over)?;
            peer.write(message, WATCH_TIMEOUT).await?;
        }
    }

    /// Asks the loop.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
        longest: Duration,
    ) -> Result<T, Stop> {
        self.wait(request, longest, Failure::Busy).await
    }

    /// Asks the loop, and waits at most `longest` for the answer; otherwise it fails with `late`.
    async fn wait<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
        longest: Duration,
        late: Failure,
    ) -> Result<T, Stop> {
        let (answer, answered) = oneshot::channel();
        self.request(request(answer)).await?;
        match timeout(longest, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Failure::Busy.into()),
            Err(_) => Err(late.into()),
        }
    }

    async fn request(&self, request: Request) -> Result<(), Stop> {
        match self.requests.send_timeout(request, LOOP_TIMEOUT).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Failure::Busy.into()),
        }
    }
}

/// Why a call was not carried out.
enum Stop {
    /// The connection is over.
    Over,
    /// It gets this error.
    Refused(Refused),
}

impl From<Over> for Stop {
    fn from(_: Over) -> Self {
        Self::Over
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure.into())
    }
}

impl Peer {
    async fn next_call(&mut self) -> Result<Call, Over> {
        let mut buffer = [0; 4096];
        loop {
            match self.frames.next() {
                Ok(Some(message)) => {
                    let call: Call = serde_json::from_slice(&message).map_err(|_| Over)?;
                    // There is no other protocol to change to.
                    return if call.upgrade { Err(Over) } else { Ok(call) };
                }
                Ok(None) => {}
                Err(_) => return Err(Over),
            }
            let count = timeout(IDLE_TIMEOUT, self.stream.read(&mut buffer)).await.map_err(|_| Over)??;
            self.frames.push(buffer.get(..count).filter(|bytes| !bytes.is_empty()).ok_or(Over)?);
        }
    }

    /// Returns when the peer has hung up, or has sent more than one message holds while it is told something.
    async fn hung_up(&mut self) -> Over {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return Over,
                Ok(_) if self.frames.len() >= LONGEST => return Over,
                Ok(count) => self.frames.push(buffer.get(..count).unwrap_or_default()),
            }
        }
    }

    /// The last reply to a call.
    async fn finish(&mut self, parameters: &impl Serialize) -> Result<(), Over> {
        self.send(&Returned { parameters, continues: false }).await
    }

    /// A reply that others follow.
    async fn go_on(&mut self, parameters: &impl Serialize) -> Result<(), Over> {
        self.send(&Returned { parameters, continues: true }).await
    }

    async fn send(&mut self, reply: &impl Serialize) -> Result<(), Over> {
        if self.oneway {
            return Ok(());
        }
        let message = framed(reply).or_else(|| framed(&Reply::from(Refused::from(Failure::AnswerTooLong))));
        self.write(message.ok_or(Over)?, WRITE_TIMEOUT).await
    }

    async fn write(&mut self, message: Vec<u8>, longest: Duration) -> Result<(), Over> {
        Ok(timeout(longest, self.stream.write_all(&message)).await.map_err(|_| Over)??)
    }
}

/// A reply that is no error, as it is sent.
#[derive(Serialize)]
struct Returned<'a, T> {
    parameters: &'a T,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    continues: bool,
}

/// A page of a list with this name.
fn entries(name: &str, page: Vec<Box<RawValue>>) -> BTreeMap<&str, Vec<Box<RawValue>>> {
    BTreeMap::from([(name, page)])
}

/// The methods of [`SERVICE`].
fn of_service(name: &str, mut parameters: Map<String, Value>) -> Result<Value, Refused> {
    match name {
        "GetInfo" => Ok(json!({
            "vendor": "port-knocking-doors",
            "product": "port-knocking-doors",
            "version": env!("CARGO_PKG_VERSION"),
            "url": "",
            "interfaces": [SERVICE, NAME],
        })),
        "GetInterfaceDescription" => match parameters.remove("interface") {
            Some(Value::String(interface)) if interface == NAME => Ok(json!({ "description": DEFINITION })),
            Some(Value::String(interface)) if interface == SERVICE => {
                Ok(json!({ "description": SERVICE_DEFINITION }))
            }
            Some(Value::String(interface)) => {
                Err(Refused::of_service("InterfaceNotFound", "interface", &interface))
            }
            _ => Err(Refused::parameter("interface")),
        },
        _ => Err(Refused::of_service("MethodNotFound", "method", &format!("{SERVICE}.{name}"))),
    }
}
