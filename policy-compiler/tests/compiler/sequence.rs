//! A sequence of events, held against everything that it must equal: [`run`].

use policy_compiler::{Compiler, Cursor, Event, Options};
use proptest::{prop_assert_eq, test_runner::TestCaseError};

use crate::{direct, generate, kernel::Kernel, world::World};

/// That of the generated clusters' first node.
pub(crate) fn compiler() -> Compiler {
    Compiler::new(Options::new(generate::NODE))
}

/// Applies batches one by one, holding everything against everything after each.
pub(crate) fn run(batches: Vec<Vec<Event>>) -> Result<(), TestCaseError> {
    let mut compiler = compiler();
    let mut world = World::default();
    let mut kernel = Kernel::default();
    for batch in batches {
        batch.iter().for_each(|event| world.apply(event));
        let changes = compiler.apply_all(batch);
        let contents = compiler.contents();
        kernel.carry_out(&changes.steps, &contents)?;
        let mut fresh = self::compiler();
        fresh.apply_all(world.events());
        prop_assert_eq!(&contents, &fresh.contents(), "the tables are not those of a fresh compilation");
        let mut told = self::compiler();
        told.apply_all(objects(&compiler));
        prop_assert_eq!(&contents, &told.contents(), "the objects that it tells are not those that it was told");
        direct::check(&world, &contents)?;
    }
    Ok(())
}

/// All that a compiler tells of its objects, a few at a time.
fn objects(compiler: &Compiler) -> Vec<Event> {
    let mut all = Vec::new();
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        let (events, next) = compiler.objects(cursor, 2);
        all.extend(events);
        from = next;
    }
    all
}
