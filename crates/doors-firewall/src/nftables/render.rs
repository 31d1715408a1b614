//! Our table as text, in the words of `nft`, from what the kernel holds.

use std::{fmt::Write as _, time::Duration};

use doors_os::netlink::{
    message::Attributes,
    socket::{Family, NetlinkError, Socket},
};

use super::{
    abi,
    ruleset::{GUARDED, TABLE, holds_grants},
    snapshot::{self, Entry},
};
use crate::plan::{Ports, Protocol};

/// Reads the table in this thread's network namespace; `None` if it does not exist.
pub fn draw() -> Result<Option<String>, NetlinkError> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let request = snapshot::list(abi::NFT_MSG_GETCHAIN, abi::NFPROTO_INET, |_| {});
    let chains = socket.dump(&request, |message| {
        let attributes = snapshot::of_table(message, abi::NFT_MSG_NEWCHAIN, abi::NFTA_CHAIN_TABLE)?;
        let hook = attributes.nested(abi::NFTA_CHAIN_HOOK).u32_be(abi::NFTA_HOOK_HOOKNUM);
        Some((attributes.text(abi::NFTA_CHAIN_NAME)?, hook))
    })?;
    if chains.is_empty() {
        return Ok(None);
    }
    let mut text = format!("table inet {TABLE} {{\n");
    let of_us = |writer: &mut doors_os::netlink::message::Writer| writer.put_text(abi::NFTA_SET_TABLE, TABLE);
    let request = snapshot::list(abi::NFT_MSG_GETSET, abi::NFPROTO_INET, of_us);
    let sets = socket.dump(&request, |message| {
        let attributes = snapshot::of_table(message, abi::NFT_MSG_NEWSET, abi::NFTA_SET_TABLE)?;
        Some((attributes.text(abi::NFTA_SET_NAME)?, attributes.u32_be(abi::NFTA_SET_FLAGS)?))
    })?;
    for (name, flags) in sets {
        if flags & abi::NFT_SET_MAP != 0 {
            draw_map(&mut text, &mut socket)?;
        } else if flags & abi::NFT_SET_TIMEOUT != 0 && holds_grants(&name) {
            let entries = snapshot::grants(&mut socket, &name)?;
            let entries: Vec<String> = entries.iter().map(entry).collect();
            let _ = match entries.is_empty() {
                true => writeln!(text, "  set {name} {{ }}"),
                false => writeln!(text, "  set {name} {{ {} }}", entries.join(", ")),
            };
        }
    }
    let request = snapshot::list(abi::NFT_MSG_GETRULE, abi::NFPROTO_INET, |writer| {
        writer.put_text(abi::NFTA_RULE_TABLE, TABLE)
    });
    let rules = socket.dump(&request, |message| {
        let attributes = snapshot::of_table(message, abi::NFT_MSG_NEWRULE, abi::NFTA_RULE_TABLE)?;
        Some((
            attributes.text(abi::NFTA_RULE_CHAIN)?,
            in_words(attributes.nested(abi::NFTA_RULE_EXPRESSIONS)),
        ))
    })?;
    for (name, hook) in chains {
        let _ = writeln!(text, "  chain {name} {{");
        if let Some(hook) = hook {
            let hook = match hook {
                abi::NF_INET_LOCAL_IN => "input",
                abi::NF_INET_FORWARD => "forward",
                _ => "prerouting",
            };
            let _ = writeln!(text, "    type filter hook {hook} priority mangle; policy accept;");
        }
        // What only has a packet traced decides nothing.
        for (_, words) in rules.iter().filter(|(chain, words)| *chain == name && !words.ends_with(TRACES)) {
            let _ = writeln!(text, "    {words}");
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
    Ok(Some(text))
}

/// How the words of a rule end that has a packet traced.
const TRACES: &str = "meta nftrace set 1";

fn entry(entry: &Entry) -> String {
    let left = entry.left.map_or("for ever".to_owned(), |left| format!("expires {}", in_seconds(left)));
    format!("{} {left}", entry.source)
}

fn in_seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

fn draw_map(text: &mut String, socket: &mut Socket) -> Result<(), NetlinkError> {
    let _ = writeln!(text, "  map {GUARDED} {{");
    let elements = snapshot::elements(socket, GUARDED, |attributes| {
        let key = |kind| attributes.nested(kind).find(abi::NFTA_DATA_VALUE).and_then(protocol_and_port);
        let (protocol, first) = key(abi::NFTA_SET_ELEM_KEY)?;
        let (_, last) = key(abi::NFTA_SET_ELEM_KEY_END).unwrap_or((protocol, first));
        let verdict = attributes.nested(abi::NFTA_SET_ELEM_DATA).nested(abi::NFTA_DATA_VERDICT);
        let numbers = Ports { protocol, first, last }.numbers();
        Some(format!("{protocol} . {numbers} : goto {}", verdict.text(abi::NFTA_VERDICT_CHAIN)?))
    })?;
    for line in elements {
        let _ = writeln!(text, "    {line}");
    }
    text.push_str("  }\n");
    Ok(())
}

fn protocol_and_port(key: &[u8]) -> Option<(Protocol, u16)> {
    let [protocol, _, _, _, high, low, _, _] = *key.first_chunk::<8>()?;
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|known| known.number() == protocol)?;
    Some((protocol, u16::from_be_bytes([high, low])))
}

/// One expression: its name and its attributes.
type Expression<'a> = (String, Attributes<'a>);

/// A rule of ours in words. What is not ours shows as the names of its expressions.
fn in_words(list: Attributes<'_>) -> String {
    let all: Vec<Expression<'_>> = list
        .filter_map(|(_, expression)| {
            let expression = Attributes(expression);
            Some((expression.text(abi::NFTA_EXPR_NAME)?, expression.nested(abi::NFTA_EXPR_DATA)))
        })
        .collect();
    let mut rest = &all[..];
    let mut words = Vec::new();
    while let Some((first, _)) = rest.split_first() {
        let (word, taken) = phrase(rest).unwrap_or((first.0.clone(), 1));
        words.push(word);
        rest = rest.get(taken..).unwrap_or_default();
    }
    words.join(" ")
}

/// The expressions at the beginning of a rule that `nft` writes as one phrase, and how many they are.
fn phrase(rest: &[Expression<'_>]) -> Option<(String, usize)> {
    let names: Vec<&str> = rest.iter().map(|(name, _)| name.as_str()).collect();
    let data = |at: usize| rest.get(at).map(|(_, data)| *data);
    Some(match &names[..] {
        ["ct", "bitwise", "cmp", ..] => match data(0)?.u32_be(abi::NFTA_CT_KEY)? {
            abi::NFT_CT_STATUS => ("ct status dnat".to_owned(), 3),
            abi::NFT_CT_MARK => {
                let bits = number(data(1)?, abi::NFTA_BITWISE_MASK)?;
                (format!("ct mark & {bits:#x} == {bits:#x}"), 3)
            }
            _ => ("ct state established".to_owned(), 3),
        },
        [what @ ("meta" | "ct"), "bitwise", other, ..] if what == other => {
            (format!("{what} mark set {what} mark | {:#x}", number(data(1)?, abi::NFTA_BITWISE_XOR)?), 3)
        }
        ["ct", "cmp", ..] if data(0)?.u32_be(abi::NFTA_CT_KEY)? == abi::NFT_CT_DIRECTION => {
            ("ct direction original".to_owned(), 2)
        }
        ["ct", "cmp", "cmp", ..] => {
            (format!("ct original proto-dst {}-{}", port(data(1)?)?, port(data(2)?)?), 3)
        }
        ["ct", "cmp", ..] => (format!("ct original proto-dst {}", port(data(1)?)?), 2),
        ["meta", "cmp", "payload", "bitwise", "cmp", ..] => {
            let how = match data(4)?.u32_be(abi::NFTA_CMP_OP)? {
                abi::NFT_CMP_EQ => "",
                _ => "!= ",
            };
            (format!("tcp flags {how}syn / fin,syn,rst,ack"), 5)
        }
        ["fib", "cmp", ..] => ("fib daddr type unicast".to_owned(), 2),
        ["meta", "cmp", "payload", "lookup", ..] => {
            let family = match data(2)?.u32_be(abi::NFTA_PAYLOAD_LEN)? {
                4 => "ip",
                _ => "ip6",
            };
            (format!("{family} saddr @{}", data(3)?.text(abi::NFTA_LOOKUP_SET)?), 4)
        }
        ["meta", "payload", "lookup", ..] => {
            (format!("meta l4proto . th dport vmap @{}", data(2)?.text(abi::NFTA_LOOKUP_SET)?), 3)
        }
        ["immediate", "meta", ..] => (TRACES.to_owned(), 2),
        ["meta", "cmp", ..] => match data(0)?.u32_be(abi::NFTA_META_KEY)? {
            abi::NFT_META_IIF => ("iif lo".to_owned(), 2),
            _ => {
                let not = match data(1)?.u32_be(abi::NFTA_CMP_OP)? {
                    abi::NFT_CMP_EQ => "",
                    _ => "!= ",
                };
                let number = *data(1)?.nested(abi::NFTA_CMP_DATA).find(abi::NFTA_DATA_VALUE)?.first()?;
                let known = |protocol: &Protocol| protocol.number() == number;
                let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(known)?;
                (format!("meta l4proto {not}{protocol}"), 2)
            }
        },
        ["counter", ..] => (format!("counter packets {}", data(0)?.u64_be(abi::NFTA_COUNTER_PACKETS)?), 1),
        ["reject", ..] => match data(0)?.u32_be(abi::NFTA_REJECT_TYPE)? {
            abi::NFT_REJECT_TCP_RST => ("reject with tcp reset".to_owned(), 1),
            _ => ("reject with icmpx port-unreachable".to_owned(), 1),
        },
        ["immediate", ..] => {
            let verdict = data(0)?.nested(abi::NFTA_IMMEDIATE_DATA).nested(abi::NFTA_DATA_VERDICT);
            let chain = || verdict.text(abi::NFTA_VERDICT_CHAIN);
            let words = match i32::from_be_bytes(*verdict.find(abi::NFTA_VERDICT_CODE)?.first_chunk()?) {
                abi::NF_DROP => "drop".to_owned(),
                abi::NFT_GOTO => format!("goto {}", chain()?),
                abi::NFT_JUMP => format!("jump {}", chain()?),
                _ => "accept".to_owned(),
            };
            (words, 1)
        }
        _ => return None,
    })
}

/// A number of four bytes within an expression, in the byte order of this machine.
fn number(data: Attributes<'_>, kind: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(*data.nested(kind).find(abi::NFTA_DATA_VALUE)?.first_chunk()?))
}

/// The port that a rule compares with.
fn port(compare: Attributes<'_>) -> Option<u16> {
    let value = compare.nested(abi::NFTA_CMP_DATA).find(abi::NFTA_DATA_VALUE)?;
    Some(u16::from_be_bytes(*value.first_chunk()?))
}
