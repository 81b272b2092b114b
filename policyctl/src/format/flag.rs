//! The value of `-o`: a format's name, or `jsonpath=` with a template.

use std::ffi::OsStr;

use clap::{
    Arg, Command, ValueEnum as _,
    builder::{EnumValueParser, PossibleValue, TypedValueParser},
    error::ErrorKind,
};

use super::Output;
use crate::jsonpath::Template;

/// Reads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputParser;

impl TypedValueParser for OutputParser {
    type Value = Output;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Output, clap::Error> {
        let template = value.to_str().and_then(|text| text.strip_prefix("jsonpath=").map(Template::parse));
        match template {
            None => EnumValueParser::<Output>::new().parse_ref(command, arg, value),
            // there is one in a process, for as long as it lives
            Some(Ok(template)) => Ok(Output::Jsonpath(Box::leak(Box::new(template)))),
            Some(Err(message)) => {
                let flag = arg.map_or_else(|| "-o".to_owned(), ToString::to_string);
                let message = format!("invalid value '{}' for '{flag}': {message}\n", value.to_string_lossy());
                Err(clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command))
            }
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let named = Output::value_variants().iter().filter_map(Output::to_possible_value);
        let template = PossibleValue::new("jsonpath=TEMPLATE").help("A template in kubectl's dialect");
        Some(Box::new(named.chain([template])))
    }
}
