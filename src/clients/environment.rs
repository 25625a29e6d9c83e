//! The environment of a process.

/// Variables in the order in which a process has them. A name is there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(Vec<(String, String)>);

/// A variable that is set, possibly to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: &'a str,
}

impl Environment {
    /// Sets a variable; one that is there keeps its place.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// All variables.
    pub fn iter(&self) -> impl Iterator<Item = Variable<'_>> {
        self.0.iter().map(|(name, value)| Variable { name, value })
    }

    /// A variable, if it is set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Variable<'_>> {
        self.iter().find(|variable| variable.name == name)
    }

    /// The first of the names that is set, be it to nothing.
    pub(super) fn first_set(&self, names: &[&str]) -> Option<Variable<'_>> {
        names.iter().find_map(|name| self.get(name))
    }

    /// The first of the names that is set to something.
    pub(super) fn first_filled(&self, names: &[&str]) -> Option<Variable<'_>> {
        names.iter().find_map(|name| self.get(name).and_then(Variable::filled))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut environment = Self::default();
        for (name, value) in pairs {
            environment.set(name, value);
        }
        environment
    }
}

impl Variable<'_> {
    /// The variable, unless it is empty.
    pub(super) fn filled(self) -> Option<Self> {
        (!self.value.is_empty()).then_some(self)
    }
}
