//! `--filter name=value`.

/// One `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// What is compared; `label!` for `label!=`.
    pub name: String,
    /// With what.
    pub value: String,
}

impl std::str::FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
        Ok(Self { name: name.trim().to_lowercase(), value: value.trim().to_owned() })
    }
}

impl Filter {
    /// docker's words for a filter that the command does not have.
    pub(crate) fn unknown(&self) -> mica_api::Error {
        mica_api::Error::new(mica_api::Class::Invalid, format!("invalid filter '{}'", self.name))
    }

    /// docker's words for a value that makes no sense.
    pub(crate) fn invalid(&self, why: impl Into<String>) -> mica_api::Error {
        let message = format!("invalid filter '{}={}'", self.name, self.value);
        mica_api::Error::new(mica_api::Class::Invalid, message).why(why)
    }

    /// The value as `key[=value]`.
    pub(crate) fn label(&self) -> (String, Option<String>) {
        match self.value.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (self.value.clone(), None),
        }
    }

    /// The value as a truth.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn truth(&self) -> Result<bool, mica_api::Error> {
        match self.value.as_str() {
            "1" | "t" | "true" | "T" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "false" | "F" | "FALSE" | "False" => Ok(false),
            _ => Err(self.invalid("expected true or false")),
        }
    }
}
