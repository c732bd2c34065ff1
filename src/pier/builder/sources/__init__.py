"""Where the files of a build come from: images, the client, repositories, the web."""
