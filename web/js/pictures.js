// Nodes 2.0 takes what a node with a VIDEO input shows for a video, unless the node says otherwise; ours show pictures.
import { app } from "../../../scripts/app.js"

app.registerExtension({
  name: "DualReal.Pictures",
  nodeCreated(node) {
    if (node.comfyClass?.startsWith("DualReal")) node.previewMediaType = "image"
  },
})
