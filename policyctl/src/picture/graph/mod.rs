//! A cluster as boxes, cards and lines: [`model::Graph`] says what is shown, the files beside this one how.

pub(crate) mod focus;
pub(crate) mod html;
mod layout;
pub(crate) mod model;
pub(crate) mod source;
pub(crate) mod svg;
