//! What the text of one module names, without what is there for tests only.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, ImplItemFn, Item, ItemMod, ItemUse, Local, Macro, Path, UseTree, Visibility,
    visit::{self, Visit},
};

/// One module.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Modules in files of their own.
    pub(crate) children: BTreeSet<String>,
    /// Paths into this crate, from its root.
    pub(crate) paths: BTreeSet<Vec<String>>,
    /// Names that are imported from elsewhere in this crate, and the paths that they stand for.
    pub(crate) imports: BTreeMap<String, Vec<String>>,
}

/// Reads the text of the module with this path.
pub(crate) fn read(text: &str, path: &[String]) -> syn::Result<Module> {
    let mut reader = Reader { path: path.to_vec(), inside: 0, module: Module::default() };
    let file = syn::parse_file(text)?;
    // Children first: a path may begin with one that is declared further down.
    for item in &file.items {
        if let Item::Mod(child) = item
            && !for_tests(&child.attrs)
            && child.content.is_none()
        {
            reader.module.children.insert(child.ident.to_string());
        }
    }
    reader.visit_file(&file);
    Ok(reader.module)
}

struct Reader {
    path: Vec<String>,
    /// How many modules that are written out in this file the reader is in.
    inside: u8,
    module: Module,
}

impl Reader {
    /// The path from the crate's root, if it leads into this crate.
    fn in_crate(&self, segments: &[String]) -> Option<Vec<String>> {
        let mut rest = segments;
        let mut path = match rest.first()?.as_str() {
            "crate" => Vec::new(),
            "super" | "self" => self.path.clone(),
            first if self.module.children.contains(first) => {
                return Some([&self.path[..], segments].concat());
            }
            _ => return None,
        };
        while let Some((first, behind)) = rest.split_first().filter(|(first, _)| is_step(first)) {
            if first == "super" {
                path.pop();
            }
            rest = behind;
        }
        path.extend_from_slice(rest);
        Some(path)
    }

    fn add(&mut self, segments: &[String]) {
        // `self` alone is a value.
        if segments.len() > 1 {
            self.module.paths.extend(self.in_crate(segments));
        }
    }

    fn add_use(&mut self, tree: &UseTree, mut before: Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add_use(&path.tree, before);
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_use(tree, before.clone()));
            }
            UseTree::Name(name) => {
                let ident = name.ident.to_string();
                // `a::{self}` imports `a`.
                let bound = if ident == "self" { before.last().cloned() } else { Some(ident.clone()) };
                before.extend((ident != "self").then_some(ident));
                self.import(bound, &before);
            }
            UseTree::Rename(rename) => {
                before.push(rename.ident.to_string());
                self.import(Some(rename.rename.to_string()), &before);
            }
            UseTree::Glob(_) => self.add(&before),
        }
    }

    fn import(&mut self, bound: Option<String>, segments: &[String]) {
        self.add(segments);
        if let Some((bound, path)) = bound.zip(self.in_crate(segments))
            && self.inside == 0
        {
            self.module.imports.insert(bound, path);
        }
    }

    /// Finds `crate::a`, `super::a` and `self::a` in what only the macro understands.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut segments: Vec<String> = Vec::new();
        let mut colons = 0_u8;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if colons == 2 || segments.is_empty() => {
                    segments.push(ident.to_string())
                }
                TokenTree::Punct(colon) if colon.as_char() == ':' && !segments.is_empty() => {
                    colons = colons.saturating_add(1);
                    continue;
                }
                other => {
                    self.add(&std::mem::take(&mut segments));
                    match other {
                        TokenTree::Ident(ident) => segments.push(ident.to_string()),
                        TokenTree::Group(group) => self.add_tokens(group.stream()),
                        TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                    }
                }
            }
            colons = 0;
        }
        self.add(&segments);
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        // One that is written out here belongs to this file; its paths are seen from inside it.
        self.path.push(module.ident.to_string());
        self.inside = self.inside.saturating_add(1);
        visit::visit_item_mod(self, module);
        self.inside = self.inside.saturating_sub(1);
        self.path.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.add_use(&item.tree, Vec::new());
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_local(&mut self, local: &'ast Local) {
        if !for_tests(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&segments);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.add_tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }

    // `pub(in crate::a)` uses nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    // Nor does what a tool reads.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

fn is_step(segment: &str) -> bool {
    ["crate", "super", "self"].contains(&segment)
}

fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[test]
fn uses_are_seen_wherever_they_stand() {
    let text = r#"
        mod child;
        use crate::{access::{self, Grant}, time::Moment as When};
        use super::door::*;
        #[cfg(test)] use crate::only_for_tests;
        pub(in crate::visible) fn f(x: crate::limits::Bound) -> child::Thing {
            println!("{}", crate::printed::X);
            <crate::packet::Packet as super::events::Event>::f(self::child::g)
        }
        impl X { #[cfg(test)] fn f() { crate::only_for_tests::f() } }
        mod written_out { use super::super::beside; use super::same; }
        #[cfg(test)] mod tests { use crate::only_for_tests; }
    "#;
    let read = read(text, &["a".to_owned(), "b".to_owned()]).unwrap();
    let paths: Vec<String> = read.paths.iter().map(|path| path.join("::")).collect();
    assert_eq!(
        paths,
        [
            "a::b::child::Thing",
            "a::b::child::g",
            "a::b::same",
            "a::beside",
            "a::door",
            "a::events::Event::f",
            "access",
            "access::Grant",
            "limits::Bound",
            "packet::Packet",
            "printed::X",
            "time::Moment"
        ]
    );
    assert_eq!(read.imports["When"], ["time", "Moment"]);
    assert_eq!(read.imports["access"], ["access"]);
    assert_eq!(read.children, BTreeSet::from(["child".to_owned()]));
}
