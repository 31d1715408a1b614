//! Has packets traced, and says what the tables of others do with what the gate lets in.

use std::time::Duration;

use doors_core::door::GrantKey;
use doors_os::netlink::socket::NetlinkError;
use doors_text::error_chain::in_one_line;
use tokio::sync::mpsc;

use super::Worker;
use crate::{
    Choice, News, Obstacles,
    nftables::{closed_by_others, looked, other_tables, trace::Dropped},
    plan::Mark,
};

impl Worker {
    /// Says which doors another firewall keeps closed, so that no knock can open them. This does not wait
    /// for firewalld, which may be slow.
    pub(in super::super::super) fn say_what_stands_in_the_way(&self, choice: &Choice) {
        let (plan, news, choice) = (self.gate.plan().clone(), self.news.clone(), choice.clone());
        tokio::spawn(async move {
            let what = "see whether another firewall closes the doors";
            tell_found(&news, what, closed_by_others(&plan, &choice).await);
        });
        self.say_what_is_news();
    }

    /// Says which connections end with their grant, and which networks are shut out unintentionally, if that is news.
    pub(super) fn say_what_is_news(&self) {
        let (plan, news, told) = (self.gate.plan().clone(), self.news.clone(), self.told.clone());
        tokio::spawn(async move {
            let what = "see what other tables do with connections through a grant";
            tell_found(&news, what, looked(move || told.news(&plan)).await);
        });
    }

    /// Says what a new mark means for connections with the old one: their packets are not marked any more, so a firewall
    /// that asks for the mark of each packet drops the next ones.
    pub(super) fn say_what_mark_changes(&self, mark: Option<Mark>) {
        let Some(before) = self.gate.plan().mark.filter(|before| Some(*before) != mark) else { return };
        let now = mark.map_or("no mark".to_owned(), |mark| format!("mark = {mark}"));
        self.tell(News::Warning(format!(
            "the configuration had mark = {before} and has {now}: connections that a grant has let in so far are not marked any \
             more, and hang if another firewall lets them through by the mark alone; a rule there for what is established \
             (`ct state established accept`) lets them go on"
        )));
    }

    /// Another program has changed other tables.
    pub(super) fn rules_changed(&mut self, rules: bool) {
        if rules {
            self.traces.forget_told();
        }
        self.traces.rules_changed(self.clock.now());
    }

    /// Has the next connection through each grant traced.
    pub(super) fn trace_all(&mut self) {
        let running = self.gate.running();
        let owed = self.traces.owe(self.gate.plan(), running.into_iter(), self.clock.now());
        self.trace(&owed);
    }

    pub(super) fn trace(&mut self, owed: &[(GrantKey, Duration)]) {
        if !owed.is_empty()
            && let Err(error) = self.gate.trace(owed)
        {
            self.tell(News::Detail(format!("packets cannot be traced: {}", in_one_line(&error))));
        }
    }

    /// Says that another table drops what the gate lets in.
    pub(super) fn tell_dropped(&self, dropped: &Dropped) {
        match other_tables::dropped(dropped, self.gate.plan().mark, self.beside.is_some()) {
            Ok(Some(warning)) => self.tell(News::Warning(warning)),
            Ok(None) => {}
            Err(error) => self.failed("see which rule drops what the gate lets in".to_owned(), &error),
        }
    }
}

/// Reports what was found, or why nothing could be seen.
fn tell_found(news: &mpsc::UnboundedSender<News>, what: &str, found: Result<Obstacles, NetlinkError>) {
    let told: Vec<News> = match found {
        Ok(Obstacles { warnings, lines }) => {
            let lines = lines.into_iter().map(News::Info);
            warnings.into_iter().map(|one| News::Warning(one.said)).chain(lines).collect()
        }
        Err(error) => vec![News::Failed { what: what.to_owned(), why: in_one_line(&error) }],
    };
    for one in told {
        let _ = news.send(one);
    }
}
