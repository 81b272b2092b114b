//! `--timeout NAME=TIME`: how long flows are remembered without a packet, by the names that nf_conntrack has for it.
//! Entry point: [`Timeout`], which clap parses and [`Timeout::set`] puts into the program's settings.

use std::{str::FromStr, time::Duration};

use enforcer_abi::Timeouts;

/// A flow's last packet is remembered in 32 bits of jiffies, half of which have to tell the past from the future: 24
/// days where a second has 1,000.
const LONGEST: Duration = Duration::from_secs(20 * 24 * 3600);

/// One `NAME=TIME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    kind: Kind,
    time: Duration,
}

/// The time-outs, each with its name and the sysctl below `net.netfilter` that it is called after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `nf_conntrack_tcp_timeout_syn_sent`
    TcpSynSent,
    /// `nf_conntrack_tcp_timeout_established`
    TcpEstablished,
    /// `nf_conntrack_tcp_timeout_fin_wait`
    TcpFinWait,
    /// `nf_conntrack_tcp_timeout_close`
    TcpClose,
    /// `nf_conntrack_udp_timeout`
    Udp,
    /// `nf_conntrack_udp_timeout_stream`
    UdpStream,
    /// `nf_conntrack_icmp_timeout`
    Icmp,
    /// `net.ipv4.ipfrag_time`, in spirit.
    Fragment,
}

const KINDS: [(&str, Kind); 8] = [
    ("tcp-syn-sent", Kind::TcpSynSent),
    ("tcp-established", Kind::TcpEstablished),
    ("tcp-fin-wait", Kind::TcpFinWait),
    ("tcp-close", Kind::TcpClose),
    ("udp", Kind::Udp),
    ("udp-stream", Kind::UdpStream),
    ("icmp", Kind::Icmp),
    ("fragment", Kind::Fragment),
];

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, time) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not of the form NAME=TIME, like tcp-established=5d"))?;
        let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
            return Err(format!("there is no time-out {name:?}; there are {}", names.join(", ")));
        };
        // as the sysctls have it
        let seconds = time.parse().map(Duration::from_secs);
        let time = seconds.or_else(|_| parse_duration(time))?;
        if time < Duration::from_secs(1) || time > LONGEST {
            return Err(format!("{name} has to be from 1s to {}d", LONGEST.as_secs() / (24 * 3600)));
        }
        Ok(Self { kind: *kind, time })
    }
}

impl Timeout {
    /// Puts it into the settings of a program; `jiffies` converts to its unit.
    pub fn set(self, timeouts: &mut Timeouts, jiffies: impl Fn(Duration) -> u64) {
        let field = match self.kind {
            Kind::TcpSynSent => &mut timeouts.syn_sent,
            Kind::TcpEstablished => &mut timeouts.established,
            Kind::TcpFinWait => &mut timeouts.closing,
            Kind::TcpClose => &mut timeouts.closed,
            Kind::Udp => &mut timeouts.one_way,
            Kind::UdpStream => &mut timeouts.replied,
            Kind::Icmp => &mut timeouts.icmp,
            Kind::Fragment => &mut timeouts.fragment,
        };
        *field = jiffies(self.time);
    }
}

/// A number with a unit: `500ms`, `120s`, `2m`, `1h`, `5d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time: write a whole number and ms, s, m, h or d, like 120s");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use enforcer_abi::Settings;

    #[test]
    fn durations() {
        #[track_caller]
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(parse_duration(text).ok().map(|d| d.as_millis()), expected.map(u128::from), "{text}");
        }
        check("120s", Some(120_000));
        check("500ms", Some(500));
        check("2m", Some(120_000));
        check("1h", Some(3_600_000));
        check("5d", Some(432_000_000));
        check("0s", Some(0));
        check("120", None);
        check("s", None);
        check("-1s", None);
        check("1.5s", None);
        check("99999999999999999999h", None);
        check("18446744073709551615h", None);
    }

    /// What becomes of the defaults, with 100 jiffies a second.
    #[track_caller]
    fn check(text: &str, change: fn(&mut Timeouts)) {
        let defaults = Settings::defaults(100).timeouts;
        let (mut set, mut expected) = (defaults, defaults);
        change(&mut expected);
        assert_ne!(expected, defaults);
        let jiffies = |time: Duration| u64::try_from(time.as_millis()).unwrap() / 10;
        text.parse::<Timeout>().unwrap().set(&mut set, jiffies);
        assert_eq!(set, expected, "{text}");
    }

    #[test]
    fn every_time_out_has_a_name() {
        check("tcp-syn-sent=20s", |timeouts| timeouts.syn_sent = 2_000);
        check("tcp-established=2h", |timeouts| timeouts.established = 720_000);
        check("tcp-established=7200", |timeouts| timeouts.established = 720_000);
        check("tcp-established=20d", |timeouts| timeouts.established = 172_800_000);
        check("tcp-fin-wait=1s", |timeouts| timeouts.closing = 100);
        check("tcp-close=1500ms", |timeouts| timeouts.closed = 150);
        check("udp=60", |timeouts| timeouts.one_way = 6_000);
        check("udp-stream=5m", |timeouts| timeouts.replied = 30_000);
        check("icmp=1m", |timeouts| timeouts.icmp = 6_000);
        check("fragment=30s", |timeouts| timeouts.fragment = 3_000);
    }

    #[test]
    fn what_is_wrong_with_one() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let error = text.parse::<Timeout>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        check("tcp-established", "like tcp-established=5d");
        check("tcp=5d", "there is no time-out \"tcp\"; there are tcp-syn-sent, tcp-established, ");
        check("udp=", "is not a time");
        check("udp=1y", "is not a time");
        check("udp=0", "from 1s to 20d");
        check("udp=999ms", "from 1s to 20d");
        check("tcp-established=21d", "from 1s to 20d");
    }

    #[test]
    fn the_longest_time_fits_into_half_of_what_is_remembered() {
        assert!(LONGEST.as_millis() < 1 << 31, "at the finest tick there is");
    }
}
