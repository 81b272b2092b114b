//! Datagrams on all ways of a scene at once, counted one by one: those that policies allow all the time, of which none may
//! be lost, and those that they refuse all the time, of which none may arrive.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use e2e::{
    bed::{Flows, Receiver, Sender, Tally},
    wait::until,
};

use crate::{
    scene::Scene,
    servers::{PATIENCE, SERVERS},
};

/// Where the receivers listen.
const PORT: u16 = 8900;
/// The longest that the last datagrams are on their way.
const FLIGHT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// What is under way between two moments.
pub(crate) struct Traffic {
    /// In the order of [`SERVERS`].
    receivers: Vec<Receiver>,
    /// The index of the receiver that each sends to.
    allowed: Vec<(usize, Sender)>,
    refused: Vec<(usize, Sender)>,
}

impl Traffic {
    /// From `steady`, who is allowed, and `other`, who is not, to both servers, over both families: as one flow each, and
    /// as flows that are all new.
    pub(crate) fn start(scene: &Scene<'_>) -> Result<Self> {
        let receivers = SERVERS.map(|server| Receiver::start(scene.network(server)?, PORT));
        let receivers = receivers.into_iter().collect::<Result<Vec<_>>>()?;
        let senders = |from: &str| {
            let mut senders = Vec::new();
            for (index, server) in SERVERS.iter().enumerate() {
                for to in scene.at(server, PORT)? {
                    for flows in [Flows::One, Flows::Each] {
                        senders.push((index, Sender::start(scene.network(from)?, to, flows)?));
                    }
                }
            }
            anyhow::Ok(senders)
        };
        let (allowed, refused) = (senders("steady")?, senders("other")?);
        let traffic = Self { receivers, allowed, refused };
        traffic.goes_on()?;
        Ok(traffic)
    }

    /// Waits until a hundred more datagrams of each kind were sent, and those that are allowed have arrived.
    pub(crate) fn goes_on(&self) -> Result<()> {
        const MORE: usize = 100;
        let sent = |(_, sender): &(usize, Sender)| sender.sent();
        let before: Vec<usize> = self.refused.iter().map(sent).collect();
        let arrived = || self.tallies(&self.allowed).map(|tally| tally.arrived).collect::<Vec<u64>>();
        let begun = arrived();
        let stuck = || format!("datagrams don't arrive any more:{}", self.told());
        until(PATIENCE, POLL, stuck, || {
            let all_sent = self.refused.iter().map(sent).zip(&before).all(|(now, before)| now >= before + MORE);
            let all_arrived = arrived().iter().zip(&begun).all(|(now, begun)| *now >= begun + MORE as u64);
            Ok((all_sent && all_arrived).then_some(()))
        })
    }

    /// Ends it: all that was allowed must have arrived, and nothing that was refused.
    pub(crate) fn end(mut self) -> Result<()> {
        // Those who may send for longer: what they sent last comes behind what others did.
        for (_, sender) in self.refused.iter_mut().chain(&mut self.allowed) {
            sender.end();
        }
        let lost = || self.tallies(&self.allowed).find_map(|tally| tally.all_arrived().err());
        // What is still missing then is lost, and told below.
        let _ = until(FLIGHT, POLL, String::new, || Ok(lost().is_none().then_some(())));
        let wrong: Vec<String> = self
            .tallies(&self.allowed)
            .map(|tally| tally.all_arrived())
            .chain(self.tallies(&self.refused).map(|tally| tally.none_arrived()))
            .filter_map(|result| Some(format!("\n{:#}", result.err()?)))
            .collect();
        if !wrong.is_empty() {
            bail!("wrong verdicts:{}", wrong.concat());
        }
        let count = |senders| self.tallies(senders).map(|tally| tally.sent).sum::<u64>();
        let (allowed, refused) = (count(&self.allowed), count(&self.refused));
        ensure!(allowed > 0 && refused > 0, "nothing was sent");
        eprintln!("{allowed} datagrams arrived, {refused} did not, as they should");
        Ok(())
    }

    fn tallies<'a>(&'a self, senders: &'a [(usize, Sender)]) -> impl Iterator<Item = Tally> + 'a {
        senders.iter().map(|(receiver, sender)| self.receivers[*receiver].tally(sender))
    }

    fn told(&self) -> String {
        let line = |tally: Tally| format!("\n{}: {} of {} have arrived", tally.what, tally.arrived, tally.sent);
        self.tallies(&self.allowed).map(line).collect()
    }
}
