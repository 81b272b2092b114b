//! How wide a text is, and how it is shortened or broken where it is too wide: [`width`], [`shortened`], [`wrapped`].
//!
//! Pictures are laid out without a renderer, by the advance widths of Helvetica, which Arial, Liberation Sans and Arimo
//! share; [`FONTS`] names those. Of letters beyond ASCII the widest is assumed.

use std::borrow::Cow;

/// The fonts that the widths are of, as CSS names them.
pub(crate) const FONTS: &str = "Arial, 'Liberation Sans', Arimo, Helvetica, sans-serif";

/// In thousandths of the font's size, from the space to the tilde.
const WIDTHS: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556,
    556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833,
    722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556,
    556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334,
    260, 334, 584,
];

/// Of everything else.
const WIDEST: u16 = 1000;

/// How much wider bold letters are at most, in percent.
const BOLD: i32 = 112;

/// In pixels, at a font size in pixels.
pub(crate) fn width(text: &str, size: i32) -> i32 {
    let one = |letter: char| match letter {
        '\u{b7}' => 278,
        '\u{d7}' | '\u{2212}' => 584,
        ' '..='~' => WIDTHS[letter as usize - 32],
        _ => WIDEST,
    };
    let sum: i32 = text.chars().map(|letter| i32::from(one(letter))).sum();
    (sum * size + 999) / 1000
}

/// The same of bold letters.
pub(crate) fn bold_width(text: &str, size: i32) -> i32 {
    width(text, size) * BOLD / 100 + 1
}

/// The text, or as much of its beginning and end as is no wider than `max`.
pub(crate) fn shortened(text: &str, size: i32, max: i32) -> Cow<'_, str> {
    if width(text, size) <= max {
        return Cow::Borrowed(text);
    }
    let letters: Vec<char> = text.chars().collect();
    // what tells names apart is at their ends more often than at their beginnings
    for kept in (2..letters.len()).rev() {
        let first = kept / 2;
        let short: String = letters[..first]
            .iter()
            .chain(['\u{2026}'].iter())
            .chain(&letters[letters.len() - (kept - first)..])
            .collect();
        if width(&short, size) <= max {
            return Cow::Owned(short);
        }
    }
    Cow::Borrowed("\u{2026}")
}

/// The text in lines no wider than `max`: broken between words, and a word that is too wide by itself where its parts
/// end, or else anywhere. Nothing is left out.
pub(crate) fn wrapped(text: &str, max: i32, width: impl Fn(&str) -> i32) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (index, word) in text.split(' ').enumerate() {
        let space = if index == 0 { "" } else { " " };
        let last = lines.last().map(String::as_str).unwrap_or_default();
        let longer = format!("{last}{space}{word}");
        if width(&longer) <= max {
            lines.pop();
            lines.push(longer);
            continue;
        }
        if last.is_empty() {
            lines.pop();
        }
        lines.extend(broken(word, max, &width));
    }
    lines
}

/// One word in as many lines as it needs.
fn broken(word: &str, max: i32, width: &impl Fn(&str) -> i32) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = word;
    while !rest.is_empty() && width(rest) > max {
        let fits = |end: &usize| *end < rest.len() && width(&rest[..*end]) <= max;
        let ends: Vec<usize> = rest.char_indices().map(|(start, letter)| start + letter.len_utf8()).collect();
        let is_part = |end: &usize| rest[..*end].ends_with(['/', '-', '.', '=', ',', ':', '_']);
        let fitting: Vec<usize> = ends.iter().copied().filter(fits).collect();
        // a letter at least, so that there is an end to it
        let end = fitting.iter().copied().rfind(is_part).or(fitting.last().copied()).or(ends.first().copied());
        let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
        lines.push(line.to_owned());
        rest = after;
    }
    if !rest.is_empty() || lines.is_empty() {
        lines.push(rest.to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_broken_and_stay_whole() {
        #[track_caller]
        fn check(text: &str, max: i32, expected: &[&str]) {
            assert_eq!(wrapped(text, max, |text| width(text, 10)), expected);
        }
        check("shop/web", 100, &["shop/web"]);
        check("isolated by shop/db-ingress, shop/deny", 100, &["isolated by", "shop/db-ingress,", "shop/deny"]);
        check(
            "shop/the-gateway-of-the-shop-6c9f7d8b5-x2x4z",
            100,
            &["shop/the-gateway-of-", "the-shop-6c9f7d8b5-", "x2x4z"],
        );
        check("egress of the-gateway-of-the-shop", 100, &["egress of", "the-gateway-of-the-", "shop"]);
        check("thisisonewordofmanyletters", 60, &["thisisonewor", "dofmanylette", "rs"]);
        check("web", 0, &["w", "e", "b"]);
        check("", 0, &[""]);
        for max in 1..200 {
            let text = "pod on the network of its node, fd00:10:244:1::4711 \u{4e16}\u{754c}";
            assert_eq!(wrapped(text, max, |text| width(text, 10)).concat().replace(' ', ""), text.replace(' ', ""));
        }
    }

    #[test]
    fn long_names_are_shortened_in_the_middle() {
        #[track_caller]
        fn check(text: &str, max: i32, expected: &str) {
            let short = shortened(text, 10, max);
            assert_eq!(short, expected);
            assert!(width(&short, 10) <= max.max(10), "{short} is {}", width(&short, 10));
        }
        check("deploy/web", 100, "deploy/web");
        check("deploy/a-very-long-name-of-a-workload", 100, "deploy/a-\u{2026}-workload");
        check("\u{4e16}\u{754c}\u{4e16}\u{754c}\u{4e16}", 40, "\u{4e16}\u{2026}\u{754c}\u{4e16}");
        check("deploy/web", 0, "\u{2026}");
        check("", 0, "");
    }
}
