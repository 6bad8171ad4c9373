"""A mini-kubelet: runs the pods of rendered manifests in namespaces of this machine, as the manifests say."""
