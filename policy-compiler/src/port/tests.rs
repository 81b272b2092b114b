//! Sets of ports against their obvious meaning, port by port.

use super::*;

fn range(protocol: Protocol, first: u16, last: u16) -> PortRange {
    PortRange { protocol, first, last }
}

fn space(ranges: &[(u16, u16)]) -> PortSpace {
    let mut space = PortSpace::default();
    for &(first, last) in ranges {
        space.add(range(Protocol::Tcp, first, last));
    }
    space.normalise();
    space
}

/// `spaces` are TCP ranges; `expected` is 'first-last=class' in order.
#[track_caller]
fn check(spaces: &[&[(u16, u16)]], expected: &str) {
    let spaces: Vec<PortSpace> = spaces.iter().map(|ranges| space(ranges)).collect();
    let atoms = atoms(&spaces.iter().collect::<Vec<_>>());
    let shown: Vec<String> = atoms
        .intervals
        .iter()
        .map(|interval| format!("{}-{}={}", interval.range.first, interval.range.last, interval.class))
        .collect();
    assert_eq!(shown.join(" "), expected);
    for interval in &atoms.intervals {
        for (set, classes) in atoms.classes_of.iter().enumerate() {
            let contains = spaces[set].covers(&space(&[(interval.range.first, interval.range.last)]));
            assert_eq!(classes.contains(&interval.class), contains, "set {set}, class {}", interval.class);
        }
    }
}

#[test]
fn cuts_along_borders() {
    check(&[], "");
    check(&[&[(80, 80)]], "80-80=1");
    check(&[&[(80, 80)], &[(80, 80)]], "80-80=1");
    check(&[&[(80, 80), (443, 443)]], "80-80=1 443-443=1");
    check(&[&[(80, 81)], &[(80, 80)]], "80-80=1 81-81=2");
    check(&[&[(0, 65535)], &[(80, 80)]], "0-79=1 80-80=2 81-65535=1");
    check(&[&[(10, 20)], &[(15, 30)]], "10-14=1 15-20=2 21-30=3");
    check(&[&[(10, 20)], &[(21, 30)]], "10-20=1 21-30=2");
}

#[test]
fn a_space_has_one_form() {
    assert_eq!(space(&[(1, 5), (6, 9), (3, 4)]), space(&[(1, 9)]));
    assert_ne!(space(&[(1, 5), (7, 9)]), space(&[(1, 9)]));
    assert_eq!(space(&[(65535, 65535), (0, 65534)]), space(&[(0, 65535)]));
}

#[test]
fn covers_is_subset() {
    assert!(space(&[(1, 9)]).covers(&space(&[(2, 3), (9, 9)])));
    assert!(!space(&[(1, 9)]).covers(&space(&[(2, 10)])));
    assert!(space(&[]).covers(&space(&[])));
    let mut all = PortSpace::default();
    all.add_all();
    assert!(all.covers(&space(&[(0, 65535)])));
    assert!(!space(&[(0, 65535)]).covers(&all));
    let mut udp = PortSpace::default();
    udp.add(range(Protocol::Udp, 5, 5));
    assert!(!space(&[(0, 65535)]).covers(&udp));
}

#[test]
fn ranges_run_across_single_ports() {
    let everything = space(&[(0, 65535)]);
    let web = space(&[(80, 80), (443, 443)]);
    let cut = atoms(&[&everything, &web]);
    let (singles, ranges) = singles_and_ranges(&cut.intervals);
    assert_eq!(singles.len(), 2);
    assert_eq!(ranges, [Interval { range: range(Protocol::Tcp, 0, 65535), class: 1 }]);
    // a gap is not run across
    let (singles, ranges) = singles_and_ranges(&atoms(&[&space(&[(1, 9), (11, 20)])]).intervals);
    assert_eq!((singles.len(), ranges.len()), (0, 2));
    // nor a single port with a gap beside it
    let (singles, ranges) =
        singles_and_ranges(&atoms(&[&space(&[(1, 9), (11, 11), (12, 20)]), &space(&[(11, 11)])]).intervals);
    assert_eq!((singles.len(), ranges.len()), (1, 2));
}

#[test]
fn prefixes_make_up_their_range() {
    for (first, last) in [(0, 65535), (1, 65535), (80, 80), (0, 1), (1, 2), (1000, 2000), (65535, 65535), (1024, 2047)]
    {
        let blocks = prefixes(range(Protocol::Tcp, first, last));
        let mut next = u32::from(first);
        for block in &blocks {
            assert_eq!(u32::from(block.first), next, "{first}-{last}");
            next += 1 << (16 - block.bits);
            assert_eq!(u32::from(block.first) % (1 << (16 - block.bits)), 0, "{first}-{last}");
        }
        assert_eq!(next, u32::from(last) + 1, "{first}-{last}");
    }
    assert_eq!(prefixes(range(Protocol::Tcp, 0, 65535)).len(), 1);
    assert_eq!(prefixes(range(Protocol::Tcp, 1, 65535)).len(), 16);
}
