//! From what the command line names to the layers of a root: a directory as it is, an image layout, a tar of either, or an image of
//! a registry. What is packed is unpacked by the confined unpacker; this process looks into no archive.

use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;

use super::arguments::Arguments;
use super::{RunError, step};
use crate::image::{Image, Images, Layer, Registry};

/// The layers, held while it lives, and what the image says about itself.
pub(super) struct Root {
    pub layers: Vec<PathBuf>,
    pub config: Option<ImageConfiguration>,
    _held: Vec<Layer>,
}

impl Root {
    fn of_image(image: Image) -> Self {
        Self { layers: image.layers, config: Some(image.config), _held: image.parts }
    }

    fn of_tree(layer: Layer) -> Self {
        Self { layers: vec![layer.path.clone()], config: None, _held: vec![layer] }
    }
}

/// Finds out what it is and makes it layers.
pub(super) async fn open(images: &Images, arguments: &Arguments) -> Result<Root, RunError> {
    if let (Some(base_url), Some(token_file)) = (&arguments.registry, &arguments.registry_token_file) {
        let image = arguments.image().map_err(step("understand the image"))?;
        let token = std::fs::read_to_string(token_file)
            .map_err(|error| format!("{}: {error}", token_file.display()))
            .map_err(step("read the registry's token"))?;
        let registry = Registry { base_url: base_url.clone(), token: token.trim().to_owned().into() };
        return images.ensure(&image, &registry).await.map(Root::of_image).map_err(step("pull the image"));
    }
    if arguments.root.is_dir() {
        let image = images.ensure_layout(&arguments.root).await.map_err(step("read the image layout"))?;
        if let Some(image) = image {
            return Ok(Root::of_image(image));
        }
        let tree = images.borrow_directory(&arguments.root).map_err(step("use the root directory"))?;
        return Ok(Root::of_tree(tree));
    }
    let named = |error| format!("{}: {error}", arguments.root.display());
    let tar = tokio::fs::File::open(&arguments.root).await.map_err(named).map_err(step("open the root"))?;
    let tree = images.import_tar(tar).await.map_err(step("unpack the root"))?;
    let image = images.ensure_layout(&tree.path).await.map_err(step("read the image layout"))?;
    Ok(image.map_or_else(|| Root::of_tree(tree), Root::of_image))
}
