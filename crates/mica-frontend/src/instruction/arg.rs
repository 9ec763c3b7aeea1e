//! ARG in a stage (V12, V13).

use mica_dockerfile::ArgItem;

use crate::Problem;
use crate::arguments;
use crate::history::Layer;
use crate::stage::StageConverter;

impl StageConverter<'_, '_> {
    /// A build argument, else the default, else the global value, else nothing, which leaves an ENV alone.
    pub(crate) fn arg(&mut self, items: &[ArgItem]) -> Result<(), Problem> {
        let mut created_by = String::from("ARG");
        for item in items {
            let arguments = self.shared.arguments;
            let value = match (arguments.build(&item.name), &item.default) {
                (Some(value), _) => Some(value.to_owned()),
                (None, Some(default)) => Some(self.word(default)?),
                (None, None) => arguments.global.value(&item.name).map(str::to_owned),
            };
            created_by.push(' ');
            created_by.push_str(&item.name);
            if let Some(value) = &value {
                created_by.push('=');
                created_by.push_str(value);
                if arguments::is_environment(&item.name) {
                    self.state.variables.set(&item.name, value);
                }
            }
            self.state.declare(&item.name, value.as_deref());
        }
        self.commit(created_by, Layer::None);
        Ok(())
    }
}
