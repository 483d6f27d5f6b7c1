import { useEffect, useRef, useState } from "preact/hooks";
import { searchOffered } from "../../search/search";
import { type Key, t } from "../../words/messages";
import { Dialog } from "../elements/Dialog";
import { Icon } from "../elements/icons";

/** Phones open their own camera from a file field. */
export const opensCameraFromFile = (): boolean =>
  !matchMedia("(pointer: fine)").matches && "capture" in HTMLInputElement.prototype;

/** On other devices the page shows the camera itself, which browsers allow on secure pages only. */
export const hasLiveCamera = (): boolean => window.isSecureContext && Boolean(navigator.mediaDevices?.getUserMedia);

export function CameraDialog({ onClose }: { onClose: () => void }) {
  const video = useRef<HTMLVideoElement>(null);
  const [error, setError] = useState<Key | null>(null);
  const [ready, setReady] = useState(false);
  useEffect(() => {
    let stream: MediaStream | null = null;
    let closed = false;
    navigator.mediaDevices
      .getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } })
      .then((opened) => {
        stream = opened;
        if (closed) for (const track of opened.getTracks()) track.stop();
        else if (video.current) video.current.srcObject = opened;
      })
      .catch((reason: DOMException) => setError(sentenceFor(reason.name)));
    return () => {
      closed = true;
      for (const track of stream?.getTracks() ?? []) track.stop();
    };
  }, []);
  const shoot = () => {
    const source = video.current;
    if (!source) return;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [source.videoWidth, source.videoHeight];
    canvas.getContext("2d")?.drawImage(source, 0, 0);
    canvas.toBlob((blob) => {
      if (!blob) return;
      onClose();
      void searchOffered({ file: blob, name: t("picture.photo") });
    }, "image/png");
  };
  return (
    <Dialog title={t("camera.title")} onClose={onClose}>
      {error ? (
        <p class="dialog-text" role="alert">
          {t(error)}
        </p>
      ) : (
        <div class="camera">
          <video
            ref={video}
            autoPlay
            playsInline
            muted
            aria-label={t("camera.sees")}
            onLoadedMetadata={() => setReady(true)}
          />
          <button type="button" class="button button-primary" disabled={!ready} onClick={shoot}>
            <Icon name="camera" />
            <span>{t("camera.search")}</span>
          </button>
        </div>
      )}
    </Dialog>
  );
}

function sentenceFor(name: string): Key {
  if (name === "NotAllowedError") return "camera.denied";
  return name === "NotFoundError" ? "camera.none" : "camera.busy";
}
