//! The forms of a page: which is open, which has the token where, which a button outside of it means.
//!
//! A browser of today ignores a form that begins within another one; older ones end the other. What is put into a form
//! must be right in both. A button may also name its form by `form="id"`, from before or behind it (HTML §4.10.17.3).

/// Most ids that are known of one page, and the longest, in bytes. Buttons of further forms lose the session.
const MOST_IDS: usize = 64;
const LONGEST_ID: usize = 64;

/// Where a form has the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Nowhere, and it leads where no token belongs: by mail, to a script, into the clear.
    Stray,
    /// Nowhere: it is none, or leads to the leave page.
    Elsewhere,
    /// In its URL: it posts.
    Url,
    /// In a field.
    Field,
    /// In its URL, and in a field for a button that gets.
    Both,
    /// Nobody can say: another form may have its id.
    Unknown,
}

impl Form {
    /// Whether it may send the token as a field.
    pub(super) const fn may_have_field(self) -> bool {
        matches!(self, Self::Field | Self::Both | Self::Unknown)
    }
}

/// What a form gets at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// The token in fields.
    WithFields,
    /// Nothing more.
    AsItIs,
}

/// The forms of a page, as far as it was read.
pub(super) struct Forms {
    /// The last one, until it ends.
    last: Form,
    /// Its place among those with an id.
    place: Option<usize>,
    /// Whether one has begun that did not end.
    open: bool,
    /// Whether that, or one around it, is stray.
    stray: bool,
    /// Those with an id; the first of each id is the one that buttons mean.
    named: Vec<(String, Form)>,
    /// Ids that buttons which get have named and no form had yet.
    wanted: Vec<String>,
}

impl Forms {
    pub(super) const fn new() -> Self {
        Self { last: Form::Elsewhere, place: None, open: false, stray: false, named: Vec::new(), wanted: Vec::new() }
    }

    /// A form begins, which has the token there, or is to have it in fields; and what it gets.
    pub(super) fn begin(&mut self, form: Form, id: Option<&str>) -> Begun {
        let within = self.open;
        self.open = true;
        self.stray |= form == Form::Stray;
        let id = id.filter(|id| !id.is_empty());
        let wanted = id.is_some_and(|id| self.wanted.iter().any(|wanted| wanted == id));
        self.last = if form == Form::Field && self.stray {
            // The fields would be those of the one around it.
            Form::Elsewhere
        } else if form == Form::Url && wanted && !within {
            Form::Both
        } else {
            form
        };
        self.place = None;
        if let Some(id) = id.filter(|id| id.len() <= LONGEST_ID && self.named.len() < MOST_IDS)
            && self.named.iter().all(|(named, _)| named != id)
        {
            self.place = Some(self.named.len());
            self.named.push((id.to_owned(), if within { Form::Unknown } else { self.last }));
        }
        if self.last.may_have_field() { Begun::WithFields } else { Begun::AsItIs }
    }

    /// The form that was open ends.
    pub(super) const fn end(&mut self) {
        self.last = Form::Elsewhere;
        self.place = None;
        self.open = false;
        self.stray = false;
    }

    /// The form around a button, or the one that it names.
    pub(super) fn of(&self, named: Option<&str>) -> Form {
        match named {
            None => self.last,
            Some(id) => self.named.iter().find(|(named, _)| named == id).map_or(Form::Unknown, |(_, form)| *form),
        }
    }

    /// Whether the form of a button that gets is to have the token in a field too, which then stands before the button.
    /// One that is only named yet gets it when it begins.
    pub(super) fn takes_field_for_get(&mut self, named: Option<&str>) -> bool {
        // A browser that does not know `form` takes the field for one of the form around it.
        if self.stray {
            return false;
        }
        let place = match named {
            None => self.place,
            Some(id) => {
                let place = self.named.iter().position(|(named, _)| named == id);
                if place.is_none() {
                    self.want(id);
                    return false;
                }
                place
            }
        };
        if self.of(named) != Form::Url {
            return false;
        }
        if let Some((_, form)) = place.and_then(|place| self.named.get_mut(place)) {
            *form = Form::Both;
        }
        if named.is_none() || place == self.place {
            self.last = Form::Both;
        }
        true
    }

    fn want(&mut self, id: &str) {
        let fits = !id.is_empty() && id.len() <= LONGEST_ID && self.wanted.len() < MOST_IDS;
        if fits && self.wanted.iter().all(|wanted| wanted != id) {
            self.wanted.push(id.to_owned());
        }
    }
}
