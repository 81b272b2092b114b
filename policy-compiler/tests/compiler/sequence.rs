//! A sequence of events, held against everything that it must equal: [`run`].

use policy_compiler::{Compiler, Event, Options};
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
        direct::check(&world, &contents)?;
    }
    Ok(())
}
