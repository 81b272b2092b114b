//! How wide a text is, and how it is shortened where it is too wide: [`width`], [`shortened`].
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

#[cfg(test)]
mod tests {
    use super::*;

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
