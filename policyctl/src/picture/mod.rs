//! Pictures of answers, as SVG and as HTML pages that stand alone. What they show comes from the compiler; here it is
//! only folded, laid out and drawn.

mod canvas;
pub(crate) mod gates;
pub(crate) mod graph;
pub(crate) mod grid;
mod letters;
mod markup;
mod page;
pub(crate) mod sheet;
mod sheet_html;
mod sheet_svg;
