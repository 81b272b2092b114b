//! An SVG picture that is drawn from its top down: [`Canvas`]. What it is called and what it says come first, its legend
//! and what it was asked of last.

use super::{
    letters::{FONTS, bold_width, shortened, width},
    markup::{Attribute, Markup},
};

/// The size of text.
pub(crate) const TEXT: i32 = 12;
/// The size of text that is said by the way.
pub(crate) const SMALL: i32 = 11;
/// Around everything.
pub(crate) const MARGIN: i32 = 24;

/// A picture.
#[derive(Debug, Default)]
pub(crate) struct Canvas {
    pub(crate) markup: Markup,
    width: i32,
    height: i32,
    interactive: bool,
}

impl Canvas {
    /// With its title and summary; and where what it shows may begin.
    pub(crate) fn new(title: &str, summary: &[String]) -> (Self, i32) {
        let mut canvas = Self::default();
        let mut y = MARGIN + 16;
        canvas.text("title", (MARGIN, y), title);
        canvas.reach(MARGIN + bold_width(title, 18), y);
        for line in summary {
            y += 20;
            canvas.text("quiet", (MARGIN, y), line);
        }
        (canvas, y + 20)
    }

    /// Where what is around it says what it is.
    pub(crate) fn untitled() -> (Self, i32) {
        (Self::default(), MARGIN / 4)
    }

    /// What is in it takes the focus.
    pub(crate) fn interactive(mut self) -> Self {
        self.interactive = true;
        self
    }

    pub(crate) const fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Makes room up to here.
    pub(crate) fn reach(&mut self, x: i32, y: i32) {
        self.width = self.width.max(x);
        self.height = self.height.max(y);
    }

    pub(crate) const fn bottom(&self) -> i32 {
        self.height
    }

    pub(crate) const fn right(&self) -> i32 {
        self.width
    }

    /// Text that is as long as it is.
    pub(crate) fn text(&mut self, class: &str, (x, y): (i32, i32), text: &str) {
        self.markup.element("text", &[("class", &class), ("x", &x), ("y", &y)], text);
        let size = if class.contains("small") { SMALL } else { TEXT };
        if !class.contains("end") && !class.contains("middle") && !class.contains("mark") {
            self.reach(x + width(text, size), y + 4);
        }
    }

    /// Text that has so much room; what is shortened says all of it when it is pointed at.
    pub(crate) fn fitted(&mut self, class: &str, (x, y): (i32, i32), text: &str, room: i32) {
        self.fitted_by(&[("class", &class), ("x", &x), ("y", &y)], text, room, class);
    }

    /// The same upwards.
    pub(crate) fn upwards(&mut self, class: &str, (x, y): (i32, i32), text: &str, room: i32) {
        let turned = format!("translate({x} {y}) rotate(-90)");
        self.fitted_by(&[("class", &class), ("transform", &turned)], text, room, class);
    }

    fn fitted_by(&mut self, attributes: &[Attribute<'_>], text: &str, room: i32, class: &str) {
        let room = if class.contains("strong") { room * 100 / 112 } else { room };
        let short = shortened(text, if class.contains("small") { SMALL } else { TEXT }, room);
        self.markup.open("text", attributes);
        if *short != *text {
            self.markup.element("title", &[], text);
        }
        self.markup.text(&short);
        self.markup.close();
    }

    /// A rectangle; two corners.
    pub(crate) fn rectangle(&mut self, class: &str, (x, y): (i32, i32), (w, h): (i32, i32), round: i32) {
        let attributes: [Attribute<'_>; 6] =
            [("class", &class), ("x", &x), ("y", &y), ("width", &w), ("height", &h), ("rx", &round)];
        self.markup.empty("rect", &attributes[..if round > 0 { 6 } else { 5 }]);
        self.reach(x + w, y + h);
    }

    pub(crate) fn path(&mut self, class: &str, path: &str) {
        self.markup.empty("path", &[("class", &class), ("d", &path)]);
    }

    /// A line of what a reader must know, below what is there already.
    pub(crate) fn footer(&mut self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        let mut y = self.height + 14;
        for line in lines {
            y += 18;
            self.text("quiet small", (MARGIN, y), line);
        }
        self.reach(0, y);
    }

    /// The document.
    pub(crate) fn finish(self, title: &str, words: &str) -> String {
        let (w, h) = (self.width + MARGIN, self.height + MARGIN);
        let mut svg = Markup::default();
        let view = format!("0 0 {w} {h}");
        svg.open(
            "svg",
            &[
                ("xmlns", &"http://www.w3.org/2000/svg"),
                ("width", &w),
                ("height", &h),
                ("viewBox", &view),
                ("role", &if self.interactive { "group" } else { "img" }),
                ("font-family", &FONTS),
            ],
        );
        svg.element("title", &[], title);
        svg.element("desc", &[], words);
        // the nonce is for pages that hold it
        svg.raw("<style nonce=\"policyctl\">\n");
        svg.raw(include_str!("svg.css"));
        svg.raw("</style>\n<defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" ");
        svg.raw("patternTransform=\"rotate(45)\"><path class=\"hatch\" d=\"M0 0V6\"/></pattern></defs>\n");
        svg.empty("rect", &[("class", &"ground"), ("width", &w), ("height", &h)]);
        svg.raw(&self.markup.finish());
        svg.finish()
    }
}
