"""The real Lavue without a screen (lavue_probe.py PORT TOPIC FOLDER): says twice a second what it offers and what it shows."""

import argparse
import json
import os
import pathlib
import sys

os.environ |= {"QT_QPA_PLATFORM": "offscreen", "PYQTGRAPH_QT_LIB": "PyQt5"}
OPTIONS = (
    "mode style stylesheet instance imagefile source configuration offset rangewindow dsfactor dsreduction mbuffer channel "
    "bkgfile bkgscale brightfieldfile brightfieldscale maskfile maskhighvalue transformation overflowvalue scaling levels "
    "autofactor gradient viewrange tool toolconfig tangodevice doordevice analysisdevice log configpath"
).split()


def main(port: str, topic: str, folder: pathlib.Path) -> None:
    import lavuelib
    from lavuelib import liveViewer
    from pyqtgraph import QtCore, QtWidgets

    (folder / "DESY").mkdir(parents=True)
    (folder / "DESY" / "LaVue.conf").write_text("[Configuration]\nAutoZMQStreamTopics=true\nInterruptOnError=false\n")
    QtCore.QResource.registerResource(str(pathlib.Path(lavuelib.__path__[0]) / "qrc" / "resources.rcc"))
    app = QtWidgets.QApplication(["LaVue"])
    app.setOrganizationName("DESY")
    app.setApplicationName("LaVue")
    wanted = dict.fromkeys(OPTIONS) | {"mode": "user", "source": "zmq", "configuration": f"127.0.0.1:{port},{topic}"}
    wanted |= {
        "start": True,
        "filters": False,
        "nospace": False,
        "version": False,
        "configpath": str(folder),
        "scaling": "linear",
    }
    wanted |= {"organization": "DESY", "domain": "desy.de", "log": "warning"}
    window = liveViewer.MainWindow(options=argparse.Namespace(**wanted))
    window.show()
    live = window.findChild(liveViewer.LiveViewer) or window.centralwidget

    def look() -> None:
        boxes = [box for box in window.findChildren(QtWidgets.QComboBox) if box.objectName().startswith("pickleTopic")]
        offered = sorted({box.itemText(number) for box in boxes for number in range(box.count())})
        image = getattr(live, "_LiveViewer__rawimage", None)
        told = {"offered": offered, "name": str(getattr(live, "_LiveViewer__imagename", None)), "shape": []}
        if getattr(image, "size", 0):
            told |= {"shape": list(image.shape), "first": float(image.flat[0]), "last": float(image.flat[-1])}
            window.grab().save(str(folder / "shown.png"))
        print(json.dumps(told), flush=True)

    timer = QtCore.QTimer()
    timer.timeout.connect(look)
    timer.start(500)
    app.exec_()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]))
