//! Our table as text, in the words of `nft`, from what the kernel holds.

use std::{fmt::Write as _, time::Duration};

use doors_os::netlink::{
    message::Attributes,
    socket::{Family, NetlinkError, Socket},
};

use super::{
    abi::{self, chain, data, element, expression, message, rule, set},
    ruleset::{GUARDED, TABLE, holds_grants},
    snapshot::{self, Entry},
};
use crate::plan::{Ports, Protocol};

/// Reads the table in this thread's network namespace; `None` if there is none.
pub fn draw() -> Result<Option<String>, NetlinkError> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let request = snapshot::list(message::GET_CHAIN, abi::FAMILY_INET, |_| {});
    let chains = socket.dump(&request, |message| {
        let attributes = snapshot::of_table(message, message::NEW_CHAIN, chain::TABLE)?;
        let hook = attributes.nested(chain::HOOK).u32_be(chain::HOOK_NUMBER);
        Some((attributes.text(chain::NAME)?, hook))
    })?;
    if chains.is_empty() {
        return Ok(None);
    }
    let mut text = format!("table inet {TABLE} {{\n");
    let of_us = |writer: &mut doors_os::netlink::message::Writer| writer.put_text(set::TABLE, TABLE);
    let request = snapshot::list(message::GET_SET, abi::FAMILY_INET, of_us);
    let sets = socket.dump(&request, |message| {
        let attributes = snapshot::of_table(message, message::NEW_SET, set::TABLE)?;
        Some((attributes.text(set::NAME)?, attributes.u32_be(set::FLAGS)?))
    })?;
    for (name, flags) in sets {
        if flags & set::FLAG_MAP != 0 {
            draw_map(&mut text, &mut socket)?;
        } else if flags & set::FLAG_TIMEOUT != 0 && holds_grants(&name) {
            let entries = snapshot::grants(&mut socket, &name)?;
            let entries: Vec<String> = entries.iter().map(entry).collect();
            let _ = match entries.is_empty() {
                true => writeln!(text, "  set {name} {{ }}"),
                false => writeln!(text, "  set {name} {{ {} }}", entries.join(", ")),
            };
        }
    }
    let request =
        snapshot::list(message::GET_RULE, abi::FAMILY_INET, |writer| writer.put_text(rule::TABLE, TABLE));
    let rules = socket.dump(&request, |message| {
        let attributes = snapshot::of_table(message, message::NEW_RULE, rule::TABLE)?;
        Some((attributes.text(rule::CHAIN)?, in_words(attributes.nested(rule::EXPRESSIONS))))
    })?;
    for (name, hook) in chains {
        let _ = writeln!(text, "  chain {name} {{");
        if let Some(hook) = hook {
            let hook = match hook {
                chain::INPUT => "input",
                chain::FORWARD => "forward",
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
        let key = |kind| attributes.nested(kind).find(data::VALUE).and_then(protocol_and_port);
        let (protocol, first) = key(element::KEY)?;
        let (_, last) = key(element::KEY_END).unwrap_or((protocol, first));
        let verdict = attributes.nested(element::DATA).nested(data::VERDICT);
        let numbers = Ports { protocol, first, last }.numbers();
        Some(format!("{protocol} . {numbers} : goto {}", verdict.text(data::VERDICT_CHAIN)?))
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
            Some((expression.text(rule::EXPRESSION_NAME)?, expression.nested(rule::EXPRESSION_DATA)))
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
        ["ct", "bitwise", "cmp", ..] => match data(0)?.u32_be(expression::CT_KEY)? {
            expression::CT_STATUS => ("ct status dnat".to_owned(), 3),
            expression::CT_MARK => {
                let bits = number(data(1)?, expression::BITWISE_MASK)?;
                (format!("ct mark & {bits:#x} == {bits:#x}"), 3)
            }
            _ => ("ct state established".to_owned(), 3),
        },
        [what @ ("meta" | "ct"), "bitwise", other, ..] if what == other => {
            (format!("{what} mark set {what} mark | {:#x}", number(data(1)?, expression::BITWISE_XOR)?), 3)
        }
        ["ct", "cmp", ..] if data(0)?.u32_be(expression::CT_KEY)? == expression::CT_OF_DIRECTION => {
            ("ct direction original".to_owned(), 2)
        }
        ["ct", "cmp", "cmp", ..] => {
            (format!("ct original proto-dst {}-{}", port(data(1)?)?, port(data(2)?)?), 3)
        }
        ["ct", "cmp", ..] => (format!("ct original proto-dst {}", port(data(1)?)?), 2),
        ["meta", "cmp", "payload", "bitwise", "cmp", ..] => {
            let how = match data(4)?.u32_be(expression::COMPARE_HOW)? {
                expression::EQUAL => "",
                _ => "!= ",
            };
            (format!("tcp flags {how}syn / fin,syn,rst,ack"), 5)
        }
        ["fib", "cmp", ..] => ("fib daddr type unicast".to_owned(), 2),
        ["meta", "cmp", "payload", "lookup", ..] => {
            let family = match data(2)?.u32_be(expression::PAYLOAD_LENGTH)? {
                4 => "ip",
                _ => "ip6",
            };
            (format!("{family} saddr @{}", data(3)?.text(expression::LOOKUP_SET)?), 4)
        }
        ["meta", "payload", "lookup", ..] => {
            (format!("meta l4proto . th dport vmap @{}", data(2)?.text(expression::LOOKUP_SET)?), 3)
        }
        ["immediate", "meta", ..] => (TRACES.to_owned(), 2),
        ["meta", "cmp", ..] => match data(0)?.u32_be(expression::META_KEY)? {
            expression::META_INTERFACE => ("iif lo".to_owned(), 2),
            _ => {
                let not = match data(1)?.u32_be(expression::COMPARE_HOW)? {
                    expression::EQUAL => "",
                    _ => "!= ",
                };
                let number = *data(1)?.nested(expression::COMPARE_DATA).find(data::VALUE)?.first()?;
                let known = |protocol: &Protocol| protocol.number() == number;
                let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(known)?;
                (format!("meta l4proto {not}{protocol}"), 2)
            }
        },
        ["counter", ..] => (format!("counter packets {}", data(0)?.u64_be(expression::COUNTER_PACKETS)?), 1),
        ["reject", ..] => match data(0)?.u32_be(expression::REJECT_TYPE)? {
            expression::REJECT_TCP_RESET => ("reject with tcp reset".to_owned(), 1),
            _ => ("reject with icmpx port-unreachable".to_owned(), 1),
        },
        ["immediate", ..] => {
            let verdict = data(0)?.nested(expression::IMMEDIATE_DATA).nested(data::VERDICT);
            let chain = || verdict.text(data::VERDICT_CHAIN);
            let words = match i32::from_be_bytes(*verdict.find(data::VERDICT_CODE)?.first_chunk()?) {
                data::DROP => "drop".to_owned(),
                data::GOTO => format!("goto {}", chain()?),
                data::JUMP => format!("jump {}", chain()?),
                _ => "accept".to_owned(),
            };
            (words, 1)
        }
        _ => return None,
    })
}

/// A number of four bytes within an expression, in the byte order of this machine.
fn number(data: Attributes<'_>, kind: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(*data.nested(kind).find(data::VALUE)?.first_chunk()?))
}

/// The port that a rule compares with.
fn port(compare: Attributes<'_>) -> Option<u16> {
    let value = compare.nested(expression::COMPARE_DATA).find(data::VALUE)?;
    Some(u16::from_be_bytes(*value.first_chunk()?))
}
