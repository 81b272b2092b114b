//! Templates as text: [`Template::parse`]. What is wrong is said in one sentence.

use serde_json::Value;

use super::{Comparison, Filter, Operand, Part, Path, Slice, Step};

/// A template, ready to be filled in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    pub(super) parts: Vec<Part>,
}

impl Template {
    /// Reads it. A path alone needs no braces.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if !text.contains('{') && text.starts_with(['.', '[', '$', '@']) {
            return Ok(Self { parts: vec![Part::Path(path(text)?)] });
        }
        // the template itself, and the ranges that are open
        let mut open: Vec<(Option<Path>, Vec<Part>)> = vec![(None, Vec::new())];
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let end = closing(after, '}').ok_or_else(|| format!("a brace is not closed: {{{after}"))?;
            let (inner, next) = (after[..end].trim(), &after[end + 1..]);
            rest = next;
            let parts = &mut innermost(&mut open).1;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            if inner == "end" {
                match open.pop() {
                    Some((Some(path), parts)) => innermost(&mut open).1.push(Part::Range(path, parts)),
                    _ => return Err("{end} has no {range}".to_owned()),
                }
            } else if let Some(of) = inner.strip_prefix("range").filter(|of| of.starts_with([' ', '.', '[', '$', '@']))
            {
                open.push((Some(path(of.trim())?), Vec::new()));
            } else if inner.starts_with(['"', '\'']) {
                parts.push(Part::Text(quoted(inner)?));
            } else {
                parts.push(Part::Path(path(inner)?));
            }
        }
        let parts = &mut innermost(&mut open).1;
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        match <[_; 1]>::try_from(open) {
            Ok([(_, parts)]) => Ok(Self { parts }),
            Err(_) => Err("{range} has no {end}".to_owned()),
        }
    }
}

fn innermost(open: &mut [(Option<Path>, Vec<Part>)]) -> &mut (Option<Path>, Vec<Part>) {
    open.last_mut().expect("the template itself is never taken off")
}

/// Where `text` has `close`, outside quotes and inner brackets.
fn closing(text: &str, close: char) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0_usize;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (_, '\\') => drop(letters.next()),
            (Some(mark), _) if mark == letter => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, _) if letter == close && depth == 0 => return Some(at),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth = depth.saturating_sub(1),
            // a bracket that is not closed is told as such
            (None, '}') if close == '}' => return Some(at),
            (None, _) => {}
        }
    }
    None
}

/// `"text\n"` or `'text'`, whole.
fn quoted(text: &str) -> Result<String, String> {
    let unclosed = || format!("a quote is not closed: {text}");
    let mark = text.chars().next().ok_or_else(unclosed)?;
    let inner = text[1..].strip_suffix(mark).ok_or_else(unclosed)?;
    let mut plain = String::new();
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next().ok_or_else(unclosed)? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            },
            other => other,
        });
    }
    Ok(plain)
}

/// A path, whole.
fn path(text: &str) -> Result<Path, String> {
    let (from_root, mut rest) = match text.chars().next() {
        Some('$') => (true, &text[1..]),
        Some('@') => (false, &text[1..]),
        Some('.' | '[') => (false, text),
        _ => return Err(format!("an expression begins with . or [ or $ or @ or a quote: {text}")),
    };
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after, ']').ok_or_else(|| format!("a bracket is not closed: {rest}"))?;
            steps.push(bracket(after[..end].trim())?);
            rest = &after[end + 1..];
            continue;
        }
        let dots = if rest.starts_with("..") { ".." } else { "." };
        let Some(after) = rest.strip_prefix(dots) else {
            return Err(format!("{rest} can't follow in {text}; put a . before it"));
        };
        if dots == ".." {
            steps.push(Step::Descend);
        }
        if after.is_empty() && dots == "." && steps.is_empty() {
            // `.` alone is everything
            break;
        }
        if after.starts_with('[') {
            rest = after;
            continue;
        }
        let (name, next) = name(after);
        if name.is_empty() {
            return Err(format!("a name is missing after {dots} in {text}"));
        }
        steps.push(if name == "*" { Step::All } else { Step::Field(name) });
        rest = next;
    }
    Ok(Path { from_root, steps })
}

/// A name up to a dot or a bracket that is not escaped, and what follows.
fn name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.extend(letters.next().map(|(_, letter)| letter)),
            '.' | '[' => return (name, &text[at..]),
            _ if letter.is_whitespace() => return (name, &text[at..]),
            _ => name.push(letter),
        }
    }
    (name, "")
}

/// What is in brackets.
fn bracket(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::All);
    }
    if let Some(inner) = text.strip_prefix("?(").and_then(|inner| inner.strip_suffix(')')) {
        return Ok(Step::Filter(Box::new(filter(inner)?)));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(end) = closing(rest, ',') {
        parts.push(element(rest[..end].trim())?);
        rest = &rest[end + 1..];
    }
    parts.push(element(rest.trim())?);
    Ok(match <[Step; 1]>::try_from(parts) {
        Ok([one]) => one,
        Err(many) => Step::Union(many),
    })
}

/// `'name'`, `1`, `1:2`
fn element(text: &str) -> Result<Step, String> {
    if text.starts_with(['"', '\'']) {
        let unclosed = || format!("a quote is not closed: {text}");
        let inner = text.get(1..).and_then(|inner| inner.strip_suffix(&text[..1])).ok_or_else(unclosed)?;
        // kubectl reads what is quoted as a path too: ['metadata.name']
        let mut names = Vec::new();
        let mut rest = inner;
        loop {
            let (part, next) = name(rest);
            names.push(Step::Field(part));
            match next.strip_prefix('.') {
                Some(next) => rest = next,
                None => break,
            }
        }
        return Ok(match <[Step; 1]>::try_from(names) {
            Ok([one]) => one,
            Err(names) => Step::Inner(names),
        });
    }
    let wrong = || format!("{text} is no index; write [0], [1:3], [*], ['name'] or [?(@.name=='x')]");
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse::<i64>().map(Some).map_err(|_| wrong()),
    };
    let parts: Vec<_> = text.split(':').collect();
    Ok(Step::Slice(match parts.as_slice() {
        [one] => Slice::One(number(one)?.ok_or_else(wrong)?),
        [from, to] => Slice::Range { from: number(from)?, to: number(to)?, step: 1 },
        [from, to, step] => {
            let step = number(step)?.unwrap_or(1);
            if step <= 0 {
                return Err(format!("a slice can't go on by {step}"));
            }
            Slice::Range { from: number(from)?, to: number(to)?, step }
        }
        _ => return Err(wrong()),
    }))
}

/// What is in `?( )`.
fn filter(text: &str) -> Result<Filter, String> {
    const COMPARISONS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::Unequal),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let found = ['=', '!', '<', '>'].into_iter().filter_map(|sign| closing(text, sign)).min();
    let compared = found.and_then(|at| {
        COMPARISONS.iter().find_map(|(sign, comparison)| Some((at, *comparison, text[at..].strip_prefix(sign)?)))
    });
    if found.is_some() && compared.is_none() {
        return Err(format!("a filter compares with ==, !=, <, <=, > or >=: {text}"));
    }
    Ok(match compared {
        None => Filter { left: operand(text)?, compared: None },
        Some((at, comparison, right)) => {
            Filter { left: operand(&text[..at])?, compared: Some((comparison, operand(right)?)) }
        }
    })
}

fn operand(text: &str) -> Result<Operand, String> {
    let text = text.trim();
    if text.starts_with(['@', '$', '.']) {
        return Ok(Operand::Path(path(text)?));
    }
    if text.starts_with(['"', '\'']) {
        return Ok(Operand::Value(quoted(text)?.into()));
    }
    match serde_json::from_str::<Value>(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Operand::Value(value)),
        _ => Err(format!("{text} in a filter is neither a path (@.name) nor a value (1, 'text', true)")),
    }
}
