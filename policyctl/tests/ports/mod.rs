//! Ports as answers write them, `TCP 80,8000-8001 UDP ICMP`, read back: [`ports`].

use std::collections::BTreeSet;

/// Protocol and port, of those that were asked about; 0 is a protocol without ports.
pub(crate) type Ports = BTreeSet<(&'static str, u16)>;

pub(crate) const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Those of the numbers `told` that a text names.
pub(crate) fn ports(text: &str, told: &[u16]) -> Ports {
    let all = |protocol| told.iter().map(move |port| (protocol, *port));
    let mut ports = Ports::new();
    let mut words = text.split(' ').filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        match word {
            "all" => {
                assert_eq!(words.next(), Some("ports"));
                ports.extend(PROTOCOLS.into_iter().flat_map(all));
                ports.insert(("ICMP", 0));
            }
            "ICMP" => drop(ports.insert(("ICMP", 0))),
            protocol => {
                let protocol = PROTOCOLS.into_iter().find(|known| *known == protocol).unwrap();
                match words.next_if(|next| next.starts_with(|first: char| first.is_ascii_digit())) {
                    None => ports.extend(all(protocol)),
                    Some(numbers) => {
                        for range in numbers.split(',') {
                            let (first, last) = range.split_once('-').unwrap_or((range, range));
                            let (first, last): (u16, u16) = (first.parse().unwrap(), last.parse().unwrap());
                            ports.extend(all(protocol).filter(|(_, port)| (first..=last).contains(port)));
                        }
                    }
                }
            }
        }
    }
    ports
}
