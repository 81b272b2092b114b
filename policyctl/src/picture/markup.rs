//! SVG and HTML, written with everything escaped that is not markup: [`Markup`]. Names come from files, and files may
//! hold anything.

use std::fmt::{Display, Write as _};

/// An attribute with its value.
pub(crate) type Attribute<'a> = (&'a str, &'a dyn Display);

/// A document that grows.
#[derive(Debug, Default)]
pub(crate) struct Markup {
    text: String,
    open: Vec<&'static str>,
}

impl Markup {
    /// Begins an element, which [`Self::close`] ends.
    pub(crate) fn open(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.begin(name, attributes);
        self.text.push('>');
        self.open.push(name);
    }

    /// Ends the element that was begun last.
    pub(crate) fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.text.push_str("</");
            self.text.push_str(name);
            self.text.push_str(">\n");
        }
    }

    /// An element without content, as SVG has it and HTML's void elements.
    pub(crate) fn empty(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.begin(name, attributes);
        self.text.push_str("/>\n");
    }

    /// An element with nothing but text.
    pub(crate) fn element(&mut self, name: &'static str, attributes: &[Attribute<'_>], text: &str) {
        self.open(name, attributes);
        self.text(text);
        self.close();
    }

    /// An element whose text keeps its lines.
    pub(crate) fn lines(&mut self, name: &'static str, text: &str) {
        self.open(name, &[]);
        for line in text.lines() {
            self.text(line);
            self.raw("\n");
        }
        self.close();
    }

    /// Text.
    pub(crate) fn text(&mut self, text: &str) {
        escape(text, &mut self.text);
    }

    /// Markup of our own.
    pub(crate) fn raw(&mut self, markup: &str) {
        self.text.push_str(markup);
    }

    /// The document, all of its elements ended.
    pub(crate) fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.close();
        }
        self.text
    }

    fn begin(&mut self, name: &str, attributes: &[Attribute<'_>]) {
        self.text.push('<');
        self.text.push_str(name);
        let mut value = String::new();
        for (attribute, display) in attributes {
            value.clear();
            let _ = write!(value, "{display}");
            self.text.push(' ');
            self.text.push_str(attribute);
            self.text.push_str("=\"");
            escape(&value, &mut self.text);
            self.text.push('"');
        }
    }
}

/// What can't be shown, or would turn the text around it, is replaced.
fn escape(text: &str, into: &mut String) {
    for letter in text.chars() {
        match letter {
            '&' => into.push_str("&amp;"),
            '<' => into.push_str("&lt;"),
            '>' => into.push_str("&gt;"),
            '"' => into.push_str("&quot;"),
            '\'' => into.push_str("&#39;"),
            other => into.push(shown(other)),
        }
    }
}

/// Control characters and those that change the direction of writing are not; XML has no place for most of them.
const fn shown(letter: char) -> char {
    match letter {
        '\n' | '\t' => ' ',
        '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{200e}' | '\u{200f}' => char::REPLACEMENT_CHARACTER,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => char::REPLACEMENT_CHARACTER,
        other => other,
    }
}

/// A value as JSON that may stand in a `script` element: nothing in it ends the element.
pub(crate) fn json_in_script(value: &serde_json::Value) -> String {
    let mut safe = String::new();
    for letter in value.to_string().chars() {
        match letter {
            '<' => safe.push_str("\\u003c"),
            '>' => safe.push_str("\\u003e"),
            '&' => safe.push_str("\\u0026"),
            '\u{2028}' => safe.push_str("\\u2028"),
            '\u{2029}' => safe.push_str("\\u2029"),
            other => safe.push(shown(other)),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_name_is_markup() {
        let mut markup = Markup::default();
        markup.open("g", &[("class", &"a\" onload=\"x"), ("x", &12)]);
        markup.element("text", &[], "</text><script>alert('1')</script>\u{202e}&\0");
        let expected = "<g class=\"a&quot; onload=&quot;x\" x=\"12\"><text>&lt;/text&gt;&lt;script&gt;alert(&#39;1&#39;)\
                        &lt;/script&gt;\u{fffd}&amp;\u{fffd}</text>\n</g>\n";
        assert_eq!(markup.finish(), expected);
        let json = json_in_script(&serde_json::json!(["</script><!--"]));
        assert_eq!(json, r#"["\u003c/script\u003e\u003c!--"]"#);
    }
}
