//! What a file is made of, object by object: [`for_each`].

use std::{mem, ops::ControlFlow, sync::mpsc, thread};

use super::{
    json, list, plain,
    tree::{Node, Unreadable, Value},
    yaml,
};
use crate::{cluster::Position, diagnostic::Kind};

/// Objects from here on are refused: what the API server stores is at most 1.5 MB (etcd's `--max-request-bytes`), and
/// one that is not there as its author wrote it takes up to forty times its size to read. Lists may be larger: they are
/// read element by element.
pub(super) const MAX_OBJECT: usize = 4_000_000;

pub(super) fn too_large() -> String {
    format!(
        "one object of more than {} MB, which no API server would take; write lists with each item on lines of its \
         own, as kubectl prints them, and objects as documents of their own, with --- between them",
        MAX_OBJECT / 1_000_000
    )
}

/// What a document is made of.
pub(super) enum Piece<'a> {
    /// A document that is no list, or one that can't be taken apart.
    Whole(Node<'a>),
    /// A list, whose elements follow.
    List,
    /// An element, and what it is if it doesn't say itself.
    Item(Option<Kind>, Node<'a>),
    /// An element of a list that can't be read.
    Broken(Unreadable),
    /// A document that can't be read, or what is left of it.
    Unreadable(Unreadable),
    /// The document, which began at this line, ends.
    End(u32),
}

/// Takes a piece, and the length of its text.
pub(super) type Each<'e, 'a> = &'e mut dyn FnMut(Piece<'a>, usize);

/// Texts from here on are read ahead: what takes less is done before a thread is there.
const LARGE: usize = 1_000_000;

/// How much is read before it is handed on.
const BATCH: usize = 64_000;

/// How many batches wait to be taken.
const AHEAD: usize = 2;

/// What a process has by default: how deep values may be nested is not to depend on the size of their file.
const STACK: usize = 8 << 20;

/// Hands on the pieces of a text in their order, until `take` breaks off. A large one is read by a thread of its own, a
/// little ahead, while `take` makes objects of what was read.
pub(super) fn for_each<'a>(text: &'a str, is_json: bool, mut take: impl FnMut(&Piece<'a>) -> ControlFlow<()>) {
    if text.len() < LARGE {
        return one_by_one(text, is_json, take);
    }
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel::<Batch<'a>>(AHEAD);
        let (used_sender, used) = mpsc::channel();
        let reader = thread::Builder::new().stack_size(STACK);
        if reader.spawn_scoped(scope, move || read_ahead(text, is_json, &sender, &used)).is_err() {
            return one_by_one(text, is_json, take);
        }
        // where this ends, the receiver goes, and with it the reader
        for batch in receiver {
            if batch.iter().try_for_each(&mut take).is_break() {
                return;
            }
            // freed by the thread that allocated it: otherwise both would wait for each other's allocator
            drop(used_sender.send(batch));
        }
    });
}

fn one_by_one<'a>(text: &'a str, is_json: bool, mut take: impl FnMut(&Piece<'a>) -> ControlFlow<()>) {
    for chunk in yaml::documents(text) {
        let mut flow = ControlFlow::Continue(());
        document(chunk, is_json, &mut |piece, _| {
            if flow.is_continue() {
                flow = take(&piece);
            }
        });
        if flow.is_break() {
            return;
        }
    }
}

type Batch<'a> = Vec<Piece<'a>>;

/// Sends batches until all is read, or nobody takes them any more.
fn read_ahead<'a>(
    text: &'a str,
    is_json: bool,
    sender: &mpsc::SyncSender<Batch<'a>>,
    used: &mpsc::Receiver<Batch<'a>>,
) {
    let mut batch = Vec::new();
    let mut size = 0;
    let mut is_wanted = true;
    for chunk in yaml::documents(text) {
        document(chunk, is_json, &mut |piece, length| {
            batch.push(piece);
            size += length;
            if size >= BATCH {
                size = 0;
                is_wanted &= sender.send(mem::take(&mut batch)).is_ok();
                used.try_iter().for_each(drop);
            }
        });
        if !is_wanted {
            return;
        }
    }
    // an error means that nobody wants it
    drop(sender.send(batch));
}

fn document<'a>(chunk: yaml::Chunk<'a>, is_json: bool, each: Each<'_, 'a>) {
    if let Err(failure) = read(chunk, is_json, each) {
        each(Piece::Unreadable(failure), 0);
    }
    each(Piece::End(chunk.line), 0);
}

/// What looks like JSON is read as JSON, and as YAML if it is none.
fn read<'a>(chunk: yaml::Chunk<'a>, is_json: bool, each: Each<'_, 'a>) -> Result<(), Unreadable> {
    let mut json_failure = None;
    if chunk.text.trim_start().starts_with('{') {
        let (count, failure) = json::read(chunk.text, chunk.line, each);
        match failure {
            None => return Ok(()),
            Some(failure) if count > 0 => return Err(failure),
            failure => json_failure = failure,
        }
    }
    if let Some(split) = list::split(chunk) {
        each(Piece::List, 0);
        let kind = split.kind;
        split.for_each(|element| {
            let piece = match read_one(element).map(|node| (node.value, node.at)) {
                Ok((Value::List(mut one), _)) if one.len() == 1 => Piece::Item(kind, one.remove(0)),
                Ok((_, at)) => Piece::Broken(Unreadable { at, message: "this is no element of the list".to_owned() }),
                Err(failure) => Piece::Broken(failure),
            };
            each(piece, element.text.len());
        });
        return Ok(());
    }
    match read_one(chunk) {
        Ok(node) => each(Piece::Whole(node), chunk.text.len()),
        Err(failure) => return Err(json_failure.filter(|_| is_json).unwrap_or(failure)),
    }
    Ok(())
}

fn read_one(chunk: yaml::Chunk<'_>) -> Result<Node<'_>, Unreadable> {
    if chunk.text.len() > MAX_OBJECT {
        return Err(Unreadable { at: Position { line: chunk.line, column: 1 }, message: too_large() });
    }
    plain::read(chunk).map_or_else(|| yaml::read(chunk), Ok)
}
