//! One connection to the control socket: reads calls, checks them, and writes the replies, one call after the other.

use std::{io, net::IpAddr, sync::PoisonError, time::Duration};

use doors_core::{
    door::{DoorName, GrantKey},
    engine::NotOpened,
    grants::LiveGrant,
    lease::{GrantedTo, Lease, Note},
    spa::client::Client,
    time::{Moment, Wall},
};
use doors_os::clock::Clock;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    interface::{
        self, By, CloseReply, DEFINITION, Failure, Grant, Holder, LevelReply, Method, NAME, OpenReply, Right,
        StatusReply, WatchReply, Which,
    },
    protocol::{Call, Frames, LONGEST, Refused, Reply, SERVICE, framed},
    request::Request,
};
use crate::observe::{
    facts::LastSeen,
    subscriber,
    watch::{QUEUE, Seen, Watched, What},
    words::Words,
};

/// A connection on which nothing happens for this long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// A peer that does not read a reply for this long is left.
const WRITING: Duration = Duration::from_secs(10);
/// A peer that reads nothing of what it watches for this long is left.
const WATCHING: Duration = Duration::from_secs(600);
/// The loop answers within this time, unless it hangs.
const LOOP: Duration = Duration::from_secs(10);
/// The firewall does what it is asked within this time, unless it hangs.
const FIREWALL: Duration = Duration::from_secs(5);
/// The configuration is read within this time: 100,000 keys on a slow machine.
const RELOAD: Duration = Duration::from_secs(60);
/// A page of a list is closed when it is this long, in bytes; one entry more fits into a message.
const PAGE: usize = LONGEST / 2;

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

/// The connection is over.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// One connection.
pub(super) struct Session {
    right: Right,
    clock: Clock,
    requests: mpsc::Sender<Request>,
    last_seen: LastSeen,
}

/// The stream, and how the present call is to be answered.
struct Peer {
    stream: UnixStream,
    frames: Frames,
    more: bool,
    oneway: bool,
}

impl Session {
    pub(super) fn new(
        right: Right,
        clock: Clock,
        requests: mpsc::Sender<Request>,
        last_seen: LastSeen,
    ) -> Self {
        Self { right, clock, requests, last_seen }
    }

    /// Answers until the peer hangs up, or does what no client does.
    pub(super) async fn run(&self, stream: UnixStream) {
        let mut peer = Peer { stream, frames: Frames::default(), more: false, oneway: false };
        while let Ok(call) = peer.next_call().await {
            if self.answer(call, &mut peer).await.is_err() {
                return;
            }
            // Others have their turn, however many calls have come at once.
            tokio::task::yield_now().await;
        }
    }

    async fn answer(&self, call: Call, peer: &mut Peer) -> Result<(), Over> {
        (peer.more, peer.oneway) = (call.more, call.oneway);
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
                if method.needs_more() && !call.more {
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
                let status = *self.ask(Request::Status, LOOP).await?;
                Ok(peer.finish(&StatusReply { status }).await?)
            }
            Method::ListGrants => self.list_grants(peer).await,
            Method::ListClients => self.list_clients(peer).await,
            Method::Open { door, address, open_for, note } => {
                let Ok(name) = DoorName::new(&door) else { return Err(Failure::NoSuchDoor(door).into()) };
                let note = Note::new(&note).ok_or_else(|| Refused::parameter("note"))?;
                let key = GrantKey { door: name, source: address };
                let request = |answer| Request::Open { key, open_for, note, answer };
                let until = match self.wait(request, FIREWALL, Failure::FirewallSlow).await? {
                    Ok(until) => until,
                    Err(why) => return Err(not_opened(why, door, address).into()),
                };
                let (now, wall) = (self.clock.now(), self.clock.wall());
                let reply = OpenReply { until: date(until, now, wall), seconds_left: left(until, now) };
                Ok(peer.finish(&reply).await?)
            }
            Method::Close { which, cut } => {
                let client = which.client.clone();
                let named = named(&which);
                let request = |answer| Request::Close(which, answer);
                let closed = self.wait(request, FIREWALL, Failure::FirewallSlow).await?;
                if let (true, Some(client)) = (closed.is_empty(), client)
                    && !self.is_client(&client).await?
                {
                    return Err(Failure::NoSuchClient(client).into());
                }
                let count = number(closed.len());
                let mut keys = closed;
                // Connections outlive their grant, so those of a door and an address are ended though it is closed.
                keys.extend(named);
                let ended = match cut {
                    true => {
                        self.wait(|answer| Request::Cut(keys, answer), FIREWALL, Failure::FirewallSlow)
                            .await?
                    }
                    false => Ok(0),
                };
                let ended = ended.map_err(Failure::NotCut)?;
                Ok(peer.finish(&CloseReply { closed: count, cut: number(ended) }).await?)
            }
            Method::Reload => match self.wait(Request::Reload, RELOAD, Failure::Busy).await? {
                Ok(reply) => Ok(peer.finish(&reply).await?),
                Err(why) => Err(Failure::NotReloaded(why).into()),
            },
            Method::SetLogLevel { level, back_after } => {
                let level = subscriber::set_level(&level).ok_or_else(|| Refused::parameter("level"))?;
                if let Some(time) = back_after {
                    tokio::task::spawn_local(async move {
                        tokio::time::sleep(time).await;
                        subscriber::unset_level(level);
                    });
                }
                Ok(peer.finish(&LevelReply { level: level.to_string() }).await?)
            }
            Method::Watch(filter) => {
                let (queue, seen) = mpsc::channel(QUEUE);
                let watched = Watched { address: filter.address, client: filter.client };
                self.ask(|answer| Request::Watch(watched, queue, answer), LOOP).await?;
                Ok(self.watch(seen, peer).await?)
            }
        }
    }

    async fn list_grants(&self, peer: &mut Peer) -> Result<(), Stop> {
        let (mut page, mut after) = (Page::default(), None);
        loop {
            let grants = self.ask(|answer| Request::Grants(after.take(), answer), LOOP).await?;
            let Some(last) = grants.last() else { break };
            after = Some(last.lease.key.clone());
            let (now, wall) = (self.clock.now(), self.clock.wall());
            for grant in grants {
                page.add(&grant_of(&grant, now, wall));
                if page.is_full() {
                    let grants = page.take();
                    peer.go_on(&json!({ "grants": grants })).await?;
                }
            }
        }
        Ok(peer.finish(&json!({ "grants": page.take() })).await?)
    }

    async fn list_clients(&self, peer: &mut Peer) -> Result<(), Stop> {
        let clients = self.ask(Request::Clients, LOOP).await?;
        let mut page = Page::default();
        for client in clients.iter() {
            page.add(&self.client_of(client));
            if page.is_full() {
                let clients = page.take();
                peer.go_on(&json!({ "clients": clients })).await?;
                // Making pages of 100,000 clients leaves others their turn.
                tokio::task::yield_now().await;
            }
        }
        Ok(peer.finish(&json!({ "clients": page.take() })).await?)
    }

    async fn is_client(&self, wanted: &str) -> Result<bool, Stop> {
        let clients = self.ask(Request::Clients, LOOP).await?;
        Ok(clients.iter().any(|client| *client.who.name == *wanted || *client.who.fingerprint == *wanted))
    }

    /// Tells what happens until the peer hangs up or the daemon ends.
    async fn watch(&self, mut seen: mpsc::Receiver<Seen>, peer: &mut Peer) -> Result<(), Over> {
        peer.go_on(&WatchReply { event: None, lost: 0 }).await?;
        loop {
            let seen = tokio::select! {
                seen = seen.recv() => seen.ok_or(Over)?,
                over = peer.hung_up() => return Err(over),
            };
            let lost = i64::try_from(seen.lost).unwrap_or(i64::MAX);
            let reply = WatchReply { event: Some(event_of(&seen.what, seen.at, seen.wall)), lost };
            let message = framed(&peer.reply(&reply, true)).ok_or(Over)?;
            peer.write(message, WATCHING).await?;
        }
    }

    fn client_of(&self, client: &Client) -> interface::Client {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let seen = {
            let last_seen = self.last_seen.lock().unwrap_or_else(PoisonError::into_inner);
            last_seen.get(&client.who).copied()
        };
        interface::Client {
            name: client.who.name.to_string(),
            fingerprint: client.who.fingerprint.to_string(),
            doors: client.doors.iter().map(ToString::to_string).collect(),
            from: client.from.iter().map(ToString::to_string).collect(),
            longest: client.max_open_for.map(|time| seconds(time.as_secs())),
            until: client.until.map(|until| seconds(until.0 / 1000)),
            expired: client.has_expired(wall),
            disabled: client.disabled,
            last_seen: seen.map(|(at, _)| past(at, now, wall)),
            last_address: seen.map(|(_, address)| address.to_string()),
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
        match self.requests.send_timeout(request, LOOP).await {
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
            let count = timeout(IDLE, self.stream.read(&mut buffer)).await.map_err(|_| Over)??;
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
        let reply = self.reply(parameters, false);
        self.send(&reply).await
    }

    /// A reply that others follow.
    async fn go_on(&mut self, parameters: &impl Serialize) -> Result<(), Over> {
        let reply = self.reply(parameters, true);
        self.send(&reply).await
    }

    fn reply(&self, parameters: &impl Serialize, continues: bool) -> Reply {
        let parameters = match serde_json::to_value(parameters) {
            Ok(Value::Object(parameters)) => parameters,
            _ => Map::new(),
        };
        Reply { error: None, parameters, continues }
    }

    async fn send(&mut self, reply: &Reply) -> Result<(), Over> {
        if self.oneway {
            return Ok(());
        }
        self.write(framed(reply).ok_or(Over)?, WRITING).await
    }

    async fn write(&mut self, message: Vec<u8>, longest: Duration) -> Result<(), Over> {
        Ok(timeout(longest, self.stream.write_all(&message)).await.map_err(|_| Over)??)
    }
}

/// The entries of one reply.
#[derive(Default)]
struct Page {
    entries: Vec<Value>,
    length: usize,
}

impl Page {
    fn add(&mut self, entry: &impl Serialize) {
        let Ok(entry) = serde_json::to_value(entry) else { return };
        self.length = self.length.saturating_add(entry.to_string().len()).saturating_add(1);
        self.entries.push(entry);
    }

    fn is_full(&self) -> bool {
        self.length >= PAGE
    }

    fn take(&mut self) -> Vec<Value> {
        self.length = 0;
        std::mem::take(&mut self.entries)
    }
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

fn not_opened(why: NotOpened, door: String, address: IpAddr) -> Failure {
    match why {
        NotOpened::NoSuchDoor => Failure::NoSuchDoor(door),
        NotOpened::Address(why) => {
            Failure::NotEligible { address: address.to_string(), why: why.to_string() }
        }
        NotOpened::TooMany => Failure::TooMany,
    }
}

/// The one door and address that are named, if both are.
fn named(which: &Which) -> Option<GrantKey> {
    let door = DoorName::new(which.door.as_deref()?).ok()?;
    Some(GrantKey { door, source: which.address? })
}

/// One open door, as the interface shows it.
fn grant_of(grant: &LiveGrant, now: Moment, wall: Wall) -> Grant {
    let Lease { key: GrantKey { door, source }, once, .. } = &grant.lease;
    Grant {
        door: door.to_string(),
        address: source.to_string(),
        holder: holder_of(&grant.lease, now, wall),
        others: grant.leases().skip(1).map(|lease| holder_of(lease, now, wall)).collect(),
        since: past(grant.since, now, wall),
        found: grant.adopted,
        confirmed: grant.is_open(),
        one_connection: *once,
    }
}

fn holder_of(lease: &Lease, now: Moment, wall: Wall) -> Holder {
    let client = lease.granted_to.client();
    let (by, note) = match &lease.granted_to {
        GrantedTo::Sequence => (By::Sequence, None),
        GrantedTo::Client(_) => (By::Client, None),
        GrantedTo::Administrator(note) => {
            (By::Administrator, Some(note.as_str()).filter(|note| !note.is_empty()))
        }
    };
    Holder {
        by,
        client: client.map(|label| label.name.to_string()),
        fingerprint: client.map(|label| label.fingerprint.to_string()),
        note: note.map(str::to_owned),
        until: date(lease.until, now, wall),
        seconds_left: left(lease.until, now),
    }
}

/// Something that happened, as the interface shows it.
pub(crate) fn event_of(what: &What, at: Moment, wall: Wall) -> interface::Event {
    let of_event;
    let (words, event) = match what {
        What::Event(event) => {
            of_event = Words::of(event, at);
            (&of_event, Some(event))
        }
        What::News(words) => (&**words, None),
    };
    let client = event.and_then(|event| event.client());
    interface::Event {
        time: seconds(wall.0 / 1000),
        kind: words.kind.to_owned(),
        level: words.level.as_str().to_lowercase(),
        text: words.text.clone(),
        door: event.and_then(|event| event.door()).map(ToString::to_string),
        address: event.map(|event| event.source().to_string()),
        client: client.map(|label| label.name.to_string()),
        fingerprint: client.map(|label| label.fingerprint.to_string()),
        until: event.and_then(|event| event.lease()).map(|lease| date(lease.until, at, wall)),
    }
}

/// A moment to come as a date, in seconds since 1970.
fn date(moment: Moment, now: Moment, wall: Wall) -> i64 {
    let after = moment.remaining(now).as_millis();
    seconds(wall.0.saturating_add(u64::try_from(after).unwrap_or(u64::MAX)) / 1000)
}

/// A moment that is past as a date, in seconds since 1970.
pub(crate) fn past(moment: Moment, now: Moment, wall: Wall) -> i64 {
    let before = now.remaining(moment).as_millis();
    seconds(wall.0.saturating_sub(u64::try_from(before).unwrap_or(u64::MAX)) / 1000)
}

fn left(until: Moment, now: Moment) -> i64 {
    seconds(until.remaining(now).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
}

fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
