// The 3D viewer: unpacks NiiVue and the volumes out of this page, when they are asked for.
"use strict";
(() => {
  const start = document.getElementById("v-start");
  if (!start) return;
  const element = (name) => document.getElementById(`v-${name}`);
  const words = element("words");
  let viewer = null;
  let shown = null;

  async function unpack(base64) {
    const packed = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  async function begin() {
    start.disabled = true;
    start.textContent = "Unpacking…";
    const script = await unpack(document.getElementById("niivue").textContent);
    const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    const { Niivue } = await import(address);
    URL.revokeObjectURL(address);
    shown = JSON.parse(document.getElementById("viewer-cases").textContent);
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-label", "The case in three planes and in 3D");
    canvas.tabIndex = 0;
    element("stage").replaceChildren(canvas);
    viewer = new Niivue({
      backColor: [0, 0, 0, 1], isRadiologicalConvention: true, dragAndDropEnabled: false, show3Dcrosshair: true,
      multiplanarForceRender: true, multiplanarLayout: 2, isColorbar: false, crosshairWidth: 0.3, sagittalNoseLeft: true,
    });
    viewer.onLocationChange = ({ mm, values }) => {
      const [right, front, top] = [...mm].map((value) => value.toFixed(1));
      element("place").textContent = `${right} mm right, ${front} front, ${top} up: image ${values[0].value.toPrecision(4)}`;
    };
    canvas.addEventListener("keydown", typed);
    await viewer.attachToCanvas(canvas);
    await show();
    document.getElementById("viewer-controls").hidden = false;
    // The button that had the focus is gone: who types goes on at the first control.
    if (document.activeElement === document.body) element("case").focus({ preventScroll: true });
    document.getElementById("viewer").dataset.ready = "yes";
  }

  // Voxels (right, front, up) of an arrow to the left, of one upwards, and of Page Up: the patient's right is on the left.
  const STEPS = {
    axial: [[1, 0, 0], [0, 1, 0], [0, 0, 1]], coronal: [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
    sagittal: [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
  };
  const KEYS = {
    ArrowLeft: [0, 1], ArrowRight: [0, -1], ArrowUp: [1, 1], ArrowDown: [1, -1], PageUp: [2, 1], PageDown: [2, -1],
  };

  // What the mouse does, by keys. NiiVue's own letters work only while the mouse is over the picture.
  function typed(event) {
    const key = KEYS[event.key];
    if (!key || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const [axis, sign] = key;
    const view = element("view").selectedOptions[0].textContent;
    if (view === "3D") {
      const turn = [[-sign, 0], [0, sign], [0, 0]][axis];
      viewer.setRenderAzimuthElevation(viewer.scene.renderAzimuth + 5 * turn[0], viewer.scene.renderElevation + 5 * turn[1]);
    } else {
      viewer.moveCrosshairInVox(...(STEPS[view] || STEPS.axial)[axis].map((step) => sign * step));
    }
  }

  // NiiVue makes the colours of label maps from ids; layers: 0 the image, then what there is of the others.
  async function show() {
    const chosen = shown.cases[Number(element("case").value)];
    while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[0]);
    const layers = ["image", "reference", "prediction"].filter((role) => chosen[role] !== null);
    for (const role of layers) await viewer.loadFromArrayBuffer(await unpack(chosen[role]), `${role}.nii`);
    for (const [index, role] of layers.entries()) {
      const volume = viewer.volumes[index];
      if (role === "image") {
        [volume.cal_min, volume.cal_max] = chosen.window;
        [element("low").value, element("high").value] = chosen.window.map((value) => Number(value.toPrecision(4)));
      } else {
        volume.setColormapLabel(shown.colours[role]);
      }
      volume.role = role;
    }
    for (const role of ["reference", "prediction"]) element(role).disabled = chosen[role] === null;
    element("view").dispatchEvent(new Event("input"));
    update();
  }

  function update() {
    for (const [index, volume] of viewer.volumes.entries()) {
      viewer.setOpacity(index, Number(element(volume.role).value));
      if (volume.role === "image") {
        const [low, high] = [Number(element("low").value), Number(element("high").value)];
        if (high > low) [volume.cal_min, volume.cal_max] = [low, high];
      }
    }
    viewer.setAtlasOutline(element("outline").checked ? 1 : 0);
    viewer.updateGLVolume();
  }

  function failed(error) {
    words.textContent = `The viewer can't start here: ${error.message}. It needs a browser with WebGL 2.`;
    words.className = "note";
    document.getElementById("viewer").dataset.ready = "no";
  }

  start.addEventListener("click", () => begin().catch(failed));
  const controls = document.getElementById("viewer-controls");
  controls.addEventListener("submit", (event) => event.preventDefault());
  element("case").addEventListener("input", () => show().catch(failed));
  element("view").addEventListener("input", () => viewer.setSliceType(Number(element("view").value)));
  for (const name of ["image", "reference", "prediction", "low", "high", "outline"]) {
    element(name).addEventListener("input", update);
  }
  if (location.hash === "#viewer") start.click();
})();
