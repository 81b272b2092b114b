//! Configuration files with `@NAMES@` to be filled in.

use anyhow::{Result, ensure};

/// `text` with every `@NAME@` replaced.
///
/// # Errors
/// If one of `values` isn't asked for.
pub(super) fn fill(text: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut filled = text.to_owned();
    for (name, value) in values {
        let place = format!("@{name}@");
        ensure!(filled.contains(&place), "the template has no {place}");
        filled = filled.replace(&place, value);
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_filled_and_every_value_used() {
        assert_eq!(fill("a: @A@, b: @A@ @B@", &[("A", "1"), ("B", "2")]).expect("both are asked for"), "a: 1, b: 1 2");
        fill("a: @A@", &[("A", "1"), ("B", "2")]).expect_err("B is not asked for");
    }
}
