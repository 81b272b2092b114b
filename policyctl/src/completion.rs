//! Completion for `kubectl netpol`: `kubectl` runs a program called `kubectl_complete-netpol` with the words so far, the
//! last of them unfinished, and reads what it may become, a line each, and in the end a directive (as cobra has them):
//! [`offer`]. For `policyctl` itself a shell's own script does it: `policyctl completion`.

use clap::{Arg, Command};

/// What the program is called then.
pub(crate) const NAME: &str = "kubectl_complete-netpol";

/// What the shell does if nothing is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Otherwise {
    /// It offers files.
    Files = 0,
    /// It doesn't.
    Nothing = 4,
}

/// All that the last word may become.
pub(crate) fn offer(root: &mut Command, words: &[String]) -> String {
    root.build();
    let (offers, otherwise) = offers(root, words);
    let lines = offers
        .iter()
        .map(|(word, help)| if help.is_empty() { format!("{word}\n") } else { format!("{word}\t{help}\n") });
    lines.collect::<String>() + &format!(":{}\n", otherwise as u8)
}

/// Each with what it means.
type Offers = Vec<(String, String)>;

fn offers(root: &Command, words: &[String]) -> (Offers, Otherwise) {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (&**last, before));
    let mut command = root;
    let mut values: Option<(&Arg, usize)> = None;
    let mut positions = 0;
    for word in before {
        if let Some((arg, left)) = values.take() {
            values = Some((arg, left - 1)).filter(|(_, left)| *left > 0);
        } else if let Some(arg) = flag(command, word) {
            let count = arg.get_num_args().map_or(0, |range| range.min_values());
            values = Some((arg, count)).filter(|(_, count)| *count > 0 && !word.contains('='));
        } else if let Some(found) = command.find_subcommand(word) {
            command = found;
        } else {
            positions += 1;
        }
    }
    if let Some((arg, _)) = values {
        return of_value(arg, last, "");
    }
    if let Some((name, value)) = last.split_once('=').filter(|(name, _)| name.starts_with("--")) {
        return flag(command, name)
            .map_or((Vec::new(), Otherwise::Nothing), |arg| of_value(arg, value, &format!("{name}=")));
    }
    if last.starts_with('-') {
        let flags = command.get_arguments().filter(|arg| !arg.is_hide_set());
        let flags = flags.filter_map(|arg| Some((format!("--{}", arg.get_long()?), first_line(arg.get_help()))));
        return (starting(flags, last), Otherwise::Nothing);
    }
    if command.has_subcommands() {
        let all = command.get_subcommands().filter(|command| !command.is_hide_set());
        let all = all.map(|command| (command.get_name().to_owned(), first_line(command.get_about())));
        return (starting(all, last), Otherwise::Nothing);
    }
    let all: Vec<_> = command.get_positionals().collect();
    let own = all.get(positions).or_else(|| all.last());
    own.map_or((Vec::new(), Otherwise::Nothing), |arg| of_value(arg, last, ""))
}

/// The flag that a word names.
fn flag<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    command.get_arguments().find(|arg| {
        let long = name.strip_prefix("--").is_some_and(|long| arg.get_long() == Some(long));
        // of several letters in one word, the last may have a value
        let is_short = name.starts_with('-') && !name.starts_with("--");
        long || (is_short && arg.get_short().is_some() && arg.get_short() == name.chars().skip(1).last())
    })
}

fn of_value(arg: &Arg, begun: &str, before: &str) -> (Offers, Otherwise) {
    let values = arg.get_possible_values();
    // a template is not to be guessed
    let known = values.iter().filter(|value| !value.is_hide_set() && !value.get_name().contains('='));
    let known = known.map(|value| (value.get_name().to_owned(), first_line(value.get_help())));
    let offers = starting(known, begun).into_iter().map(|(word, help)| (format!("{before}{word}"), help)).collect();
    let names = arg.get_value_names().into_iter().flatten();
    let is_file = names.into_iter().any(|name| ["FILE", "DIR", "SOCKET"].iter().any(|word| name.contains(word)));
    (offers, if is_file { Otherwise::Files } else { Otherwise::Nothing })
}

fn starting(all: impl Iterator<Item = (String, String)>, begun: &str) -> Offers {
    all.filter(|(word, _)| word.starts_with(begun)).collect()
}

fn first_line(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}
