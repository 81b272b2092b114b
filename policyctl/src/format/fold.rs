//! Long lines folded to the width of a terminal, at gaps and words, with a hanging indent: [`lines`] for running text,
//! [`cell`] and [`columns`] for tables. What is piped is never folded.

use std::os::fd::AsFd;

/// Narrower terminals are left to fold by themselves.
const NARROWEST: usize = 40;

/// How far what follows is indented, where a line has no columns.
const INDENT: usize = 4;

/// The width of a terminal; `None` of anything else.
pub(crate) fn width(stream: impl AsFd) -> Option<usize> {
    let (terminal_size::Width(width), _) = terminal_size::terminal_size_of(stream)?;
    Some(usize::from(width)).filter(|width| *width >= NARROWEST)
}

/// The lines that one line becomes; those after the first stand below its last column that leaves them room.
pub(super) fn lines(line: &str, width: usize) -> Vec<String> {
    let letters: Vec<char> = line.chars().collect();
    if letters.len() <= width {
        return vec![line.to_owned()];
    }
    let own = letters.iter().take_while(|letter| **letter == ' ').count();
    let room = width * 3 / 5;
    let column = gaps(&letters, own).map(|(_, end)| end).take_while(|end| *end <= room).last();
    let indent = column.unwrap_or(own + INDENT).min(room);
    let (mut folded, mut rest, mut before) = (Vec::new(), &letters[..], String::new());
    while before.len() + rest.len() > width {
        let fits = width - before.len();
        let (end, next) =
            if before.is_empty() { first_break(rest, fits, own, width - indent) } else { break_at(rest, fits) };
        folded.push(before + rest[..end].iter().collect::<String>().trim_end());
        rest = &rest[next..];
        before = " ".repeat(indent);
    }
    folded.push(before + &rest.iter().collect::<String>());
    folded
}

/// Where columns are told apart by two spaces or more: the gap's begin and end.
fn gaps(letters: &[char], own: usize) -> impl DoubleEndedIterator<Item = (usize, usize)> {
    let mut found = Vec::new();
    let mut begin = None;
    for (place, letter) in letters.iter().enumerate().skip(own) {
        match (letter, begin) {
            (' ', None) => begin = Some(place),
            (' ', Some(_)) | (_, None) => {}
            (_, Some(from)) => {
                if place - from > 1 {
                    found.push((from, place));
                }
                begin = None;
            }
        }
    }
    found.into_iter()
}

/// Before the last column, if all of that fits into the next line; else as [`break_at`].
fn first_break(letters: &[char], fits: usize, own: usize, next: usize) -> (usize, usize) {
    let gap = gaps(letters, own).rev().find(|(begin, _)| *begin <= fits);
    let whole = gap.filter(|(begin, end)| *begin > fits / 2 && letters.len() - end <= next);
    whole.unwrap_or_else(|| break_at(letters, fits))
}

/// Where at most `fits` letters end, and where it goes on: at a space, else behind a mark that names are made of.
fn break_at(letters: &[char], fits: usize) -> (usize, usize) {
    if letters.len() <= fits {
        return (letters.len(), letters.len());
    }
    let start = letters.iter().take_while(|letter| **letter == ' ').count();
    if let Some(space) = (start + 1..=fits).rev().find(|place| letters[*place] == ' ') {
        let next = (space..letters.len()).find(|place| letters[*place] != ' ').unwrap_or(letters.len());
        return (space, next);
    }
    let is_mark = |place: &usize| matches!(letters[*place - 1], ',' | '/' | '-' | '.' | ':');
    let end = (start + fits / 3..=fits).rev().filter(|place| *place > 0).find(is_mark).unwrap_or(fits.max(1));
    (end, end)
}

/// A cell in lines of at most this width.
pub(super) fn cell(text: &str, width: usize) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let (mut folded, mut rest) = (Vec::new(), &letters[..]);
    while rest.len() > width {
        let (end, next) = break_at(rest, width);
        folded.push(rest[..end].iter().collect::<String>().trim_end().to_owned());
        rest = &rest[next..];
    }
    folded.push(rest.iter().collect());
    folded
}

/// The narrowest that a column becomes.
const COLUMN: usize = 10;

/// How wide a column wants to be, and how wide it has to be if no word of it is torn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) width: usize,
    pub(super) word: usize,
}

impl Wanted {
    /// Of all cells of a column.
    pub(super) fn by<'a>(cells: impl Iterator<Item = &'a str>) -> Self {
        cells.fold(Self::default(), |all, cell| {
            let word = cell.split(' ').map(|word| word.chars().count()).max().unwrap_or_default();
            Self { width: all.width.max(cell.chars().count()), word: all.word.max(word) }
        })
    }
}

/// Widths of columns, two spaces apart, so that a row fits: the widest give way, and tear words only if they must. `None`
/// if they can't.
pub(super) fn columns(wanted: &[Wanted], width: usize) -> Option<Vec<usize>> {
    let room = width.checked_sub(2 * wanted.len().saturating_sub(1))?;
    let least = |whole: bool| wanted.iter().map(move |wanted| if whole { wanted.word.max(COLUMN) } else { COLUMN });
    [true, false].into_iter().find_map(|whole| {
        let least: Vec<_> = least(whole).collect();
        let mut widths: Vec<_> = wanted.iter().map(|wanted| wanted.width).collect();
        while widths.iter().sum::<usize>() > room {
            let may = (0..widths.len()).filter(|place| widths[*place] > least[*place]);
            let widest = may.max_by_key(|place| widths[*place])?;
            widths[widest] -= 1;
        }
        Some(widths)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[&str]) {
        assert_eq!(lines(line, 40), expected);
    }

    #[test]
    fn what_fits_stays() {
        check("", &[""]);
        check(&"x".repeat(40), &[&"x".repeat(40)]);
    }

    #[test]
    fn words_go_below_their_column() {
        check(
            "  ingress  to db-0   3 policies isolate it, no rule matches",
            &["  ingress  to db-0   3 policies isolate", "                     it, no rule matches"],
        );
        check(
            "a sentence without any columns that is too long for it",
            &["a sentence without any columns that is", "    too long for it"],
        );
        // a place is not torn off letter by letter
        check(
            "  shop/deny  no ingress rules      k8s/deny.yaml:1",
            &["  shop/deny  no ingress rules", "             k8s/deny.yaml:1"],
        );
    }

    #[test]
    fn names_break_at_their_marks() {
        check(
            "warning: namespace-of-somebody/the-name-of-a-pod-that-is-long",
            &["warning:", "    namespace-of-somebody/the-name-of-a-", "    pod-that-is-long"],
        );
        let long = "x".repeat(100);
        let folded = lines(&long, 40);
        assert!(folded.iter().all(|line| line.len() <= 40), "{folded:?}");
        assert_eq!(folded.iter().map(|line| line.trim()).collect::<String>(), long);
    }

    /// Nothing gets lost, whatever the text and the width are.
    #[test]
    fn every_letter_is_kept() {
        let text = "  a -> b  TCP/80 over IPv4:  expected refused by egress,   found: allowed/denied-by x.y.z   (k8s/db.yaml:12)";
        let bare = |text: &str| text.split_whitespace().collect::<String>();
        for repeated in 1..4 {
            let text = text.repeat(repeated);
            for width in NARROWEST..text.len() + 2 {
                let folded = lines(&text, width);
                assert_eq!(bare(&folded.concat()), bare(&text), "{width}");
                assert!(folded.iter().all(|line| line.chars().count() <= width), "{width}: {folded:#?}");
                let folded = cell(&text, width);
                assert_eq!(bare(&folded.concat()), bare(&text), "{width}");
                assert!(folded.iter().all(|line| line.chars().count() <= width), "{width}: {folded:#?}");
            }
        }
    }

    #[test]
    fn the_widest_columns_give_way() {
        #[track_caller]
        fn check(wanted: &[(usize, usize)], expected: Option<&[usize]>) {
            let wanted: Vec<_> = wanted.iter().map(|(width, word)| Wanted { width: *width, word: *word }).collect();
            assert_eq!(columns(&wanted, 60).as_deref(), expected);
        }
        check(&[(5, 5), (30, 5), (40, 5)], Some(&[5, 26, 25]));
        // one that is a single word stays whole
        check(&[(5, 5), (30, 30), (40, 5)], Some(&[5, 30, 21]));
        check(&[(5, 5), (30, 30), (40, 40)], Some(&[5, 26, 25]));
        check(&[(5, 5), (6, 6)], Some(&[5, 6]));
        check(&[(20, 5); 6], None);
        assert_eq!(Wanted::by(["all ports", "-", "some pods only"].into_iter()), Wanted { width: 14, word: 5 });
    }
}
